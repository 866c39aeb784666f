import {StoreMissing} from '../../storage/blob-store.ts';
import {DiskFull} from '../../storage/metadata.ts';
import {diskFailed, SpoolFailed} from '../failure.ts';

/** What systems say when there is no room left: the disk is full, or a quota is. */
const NO_ROOM = new Set(['ENOSPC', 'EDQUOT']);

/** Runs what stores something, and tells its client when there is no room for it. */
export async function storing<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const said = error instanceof SpoolFailed ? error.cause : error;
    if (said instanceof StoreMissing) throw said;
    if (said instanceof DiskFull) throw diskFailed('the disk is full', error);
    const code = said instanceof Error && 'code' in said ? said.code : undefined;
    if (typeof code !== 'string' || !NO_ROOM.has(code)) throw error;
    throw diskFailed(`the disk is full (${code})`, error);
  }
}
