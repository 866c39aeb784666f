import type {BlobFile, BlobFiles} from '../blob-files.ts';
import type {SharedFiles} from './shared-files.ts';

/** @param shared what is read of the files, together with all others who read them in this thread */
export const createBlobFiles = (shared: SharedFiles): BlobFiles => ({
  async open({path, size}: BlobFile) {
    const file = await shared.open(path);
    if (file.size === size) return {read: () => file.read(0, size), close: () => file.close()};
    await file.close();
    throw new Error(`${path} has ${file.size} bytes, and not ${size}`);
  },

  forget: (path) => shared.forget(path),
  close: () => shared.close(),
});
