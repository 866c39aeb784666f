import {stat} from 'node:fs/promises';
import type {BlobFile, BlobFiles} from '../blob-files.ts';
import type {SharedFiles} from './shared-files.ts';

/** @param shared what is read of the files, together with all others who read them in this thread */
export const createBlobFiles = (shared: SharedFiles): BlobFiles => ({
  async open({path, size}: BlobFile) {
    // Who joins those that read it already must not miss that the file has been replaced meanwhile.
    if (shared.isOpen(path)) shared.compare(path, await stat(path));
    const file = await shared.open(path);
    if (file.size === size) return {read: () => file.read(0, size), close: () => file.close()};
    await file.close();
    throw new Error(`${path} has ${file.size} bytes, and not ${size}`);
  },

  forget: (path) => shared.forget(path),
});
