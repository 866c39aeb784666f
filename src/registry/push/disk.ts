import {OciError} from '../../oci/errors.ts';
import {SpoolFailed} from '../fill/download.ts';

/** What systems say when there is no room left: the disk is full, or a quota is. */
const NO_ROOM = new Set(['ENOSPC', 'EDQUOT']);

/** For the client of a registry that cannot store what was pushed (RFC 4918, section 11.5: Insufficient Storage). */
export const diskFailed = (what: string, cause?: unknown): OciError =>
  new OciError('UNKNOWN', {
    status: 507,
    message: `${what}: this registry has no room for it; free some, or have its operator do so, and push again`,
    cause,
  });

/** Runs what stores something, and tells its client when there is no room for it. */
export async function storing<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const said = error instanceof SpoolFailed ? error.cause : error;
    const code = said instanceof Error && 'code' in said ? said.code : undefined;
    if (typeof code !== 'string' || !NO_ROOM.has(code)) throw error;
    throw diskFailed(`the disk is full (${code})`, error);
  }
}
