import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Digest} from '../../oci/digest.ts';
import type {BlobLink, ManifestRecord, Metadata} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import {type Access, accessKey, grantIn} from '../access.ts';
import type {Fills} from '../blobs/fills.ts';
import type {BlobLifecycle} from '../blobs/lifecycle.ts';
import {blobSource} from '../blobs/source.ts';
import {BlobAbsent, DigestMismatch} from '../failure.ts';
import type {Route} from '../namespace.ts';
import type {ManifestPull} from '../pull/manifest.ts';

/**
 * What a repository has, its bytes here: what was pushed, and, over an upstream, what that one has, which is fetched
 * first. `undefined` is an absence; UpstreamFailure where the upstream could not be asked.
 */
export interface EnsureLocal {
  /** @throws SpoolFailed, when the bytes could not be written */
  blob(route: Route, digest: Digest, caller: Caller): Promise<Pick<BlobLink, 'size' | 'origin'> | undefined>;
  /** @throws NoRoom, when it could not be kept */
  manifest(route: Route, digest: Digest, caller: Caller): Promise<ManifestRecord | undefined>;
}

export interface EnsureLocalParts {
  metadata: Metadata;
  lifecycle: Pick<BlobLifecycle, 'stored'>;
  access: Access;
  fills: Fills;
  pull: ManifestPull;
  clock: Clock;
}

export function createEnsureLocal({
  metadata,
  lifecycle,
  access,
  fills,
  pull,
  clock,
}: EnsureLocalParts): EnsureLocal {
  /** Downloads a blob that this caller was found to have access to. A download that somebody else began, and lost, is begun anew. */
  async function fetched(
    route: Route,
    digest: Digest,
    expected: number | undefined,
    caller: Caller,
  ): Promise<number | undefined> {
    const order = {digest, expected, source: blobSource(route, digest, caller)};
    const {mine, fill} = fills.claim({...order, beganFor: accessKey(route, digest, caller)});
    const leave = fill.join();
    try {
      await fill.done;
    } catch (error) {
      if (!mine) return fetched(route, digest, expected, caller);
      if (error instanceof BlobAbsent) return undefined;
      // What it has cannot be taken for the blob, nor for its absence.
      if (error instanceof DigestMismatch) throw otherContent(route, digest, error);
      throw error;
    } finally {
      leave();
    }
    return lifecycle.stored(digest);
  }

  /** What the upstream grants, downloaded unless its bytes are here. */
  async function obtained(route: Route, digest: Digest, caller: Caller) {
    const {repository} = route;
    const origin = 'upstream' as const;
    const grant = grantIn(await access.blob(route, digest, caller));
    if (!grant) return undefined;
    const size = (await lifecycle.stored(digest)) ?? (await fetched(route, digest, grant.size, caller));
    if (size === undefined) return undefined;
    // A commit relies on the link, for which there was no size, or no room, when the upstream granted the blob.
    if (!(await metadata.blobLink(repository, digest))) {
      await metadata.commit([{type: 'blob.link', repository, digest, size, origin, at: clock.now()}]);
    }
    return {size, origin};
  }

  return {
    async blob(route, digest, caller) {
      const link = await metadata.blobLink(route.repository, digest);
      const size = link && (await lifecycle.stored(digest));
      if (link && size !== undefined) return {size, origin: link.origin};
      return route.registry.hosted ? undefined : obtained(route, digest, caller);
    },

    async manifest(route, digest, caller) {
      const here = await metadata.manifest(route.repository, digest);
      if (here || route.registry.hosted) return here;
      const {value, unkept} = await pull.byDigest(route, digest, caller);
      if (unkept) throw unkept;
      return value;
    },
  };
}

const otherContent = (
  {registry: {upstream}}: Route,
  digest: Digest,
  cause: DigestMismatch,
): UpstreamFailure =>
  new UpstreamFailure('protocol', upstream.host, `says that it has ${digest}, and sent something else`, {
    cause,
  });
