import type {BlobSource} from '../../oci/blob.ts';
import type {Exchange} from '../exchange.ts';
import {UpstreamFailure} from '../port.ts';
import type {Target} from '../transport/target.ts';
import {headBlob} from './blobs.ts';
import {beginUpload, finishUpload} from './uploads.ts';

/** Upload sessions that are opened for one blob while connections break. */
const SESSIONS = 3;

/** @returns false when the registry did not say that it created the blob */
async function upload(ask: Exchange['ask'], uploads: Target, blob: BlobSource): Promise<boolean> {
  const session = await beginUpload(ask, uploads, {});
  if (session === 'mounted') return true;
  const chunk = {length: blob.size, range: undefined, bytes: blob.open()};
  const at = {...uploads, url: new URL(session.location)};
  return (await finishUpload(ask, at, blob.digest, chunk)).created;
}

/**
 * Uploads a blob unless it is there (distribution-spec, "POST then PUT"). A connection that breaks costs a new session:
 * sent twice to one, the bytes would follow each other.
 * @param target its URL is that of the blob.
 * @param uploads the URL under which uploads begin.
 */
export async function pushBlob(
  ask: Exchange['ask'],
  target: Target,
  uploads: URL,
  blob: BlobSource,
): Promise<void> {
  if (await headBlob(ask, target)) return;
  for (let session = 1; ; session++) {
    try {
      const created = await upload(ask, {...target, url: uploads}, blob);
      if (created || (await headBlob(ask, target))) return;
      throw new UpstreamFailure(
        'protocol',
        target.url.host,
        `took the bytes of ${blob.digest} and does not have it`,
      );
    } catch (error) {
      const broken = error instanceof UpstreamFailure && error.kind === 'unreachable';
      if (!broken || session === SESSIONS) throw error;
    }
  }
}
