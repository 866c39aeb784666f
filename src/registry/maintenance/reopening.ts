import type {Events} from '../../events.ts';
import type {DiskFull} from '../../storage/metadata.ts';

export interface ReopeningParts {
  /** Why the metadata can only be read at the moment; undefined while they can be changed. */
  refusal(): DiskFull | undefined;
  /** Tries to open the metadata for writing. @returns whether they can be written */
  reopen(): Promise<boolean>;
  events: Events;
}

/**
 * Looks whether the metadata can be written, and opens them for writing once the disk allows it again. Reports both changes.
 * @returns what looks once
 */
export function createReopening({refusal, reopen, events}: ReopeningParts): () => Promise<void> {
  let isReported = false;

  const reportWritable = () => {
    if (isReported) events.emit('storage.writable');
    isReported = false;
  };

  return async () => {
    const reason = refusal()?.message;
    if (reason === undefined) return reportWritable();
    if (!isReported) events.emit('storage.read-only', {reason});
    isReported = true;
    if (await reopen()) reportWritable();
  };
}
