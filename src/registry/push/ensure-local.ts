import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Digest} from '../../oci/digest.ts';
import type {BlobLink, ManifestRecord, Metadata} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import {type Access, accessKey} from '../access.ts';
import type {Fills} from '../blobs/fills.ts';
import type {BlobLifecycle} from '../blobs/lifecycle.ts';
import {blobSource} from '../blobs/source.ts';
import {BlobAbsent, DigestMismatch} from '../failure.ts';
import type {Route} from '../namespace.ts';
import {grantIn} from '../place-access.ts';
import {keptIn, type ManifestPull} from '../pull/manifest.ts';

/**
 * Content of a repository, made sure to be stored here. In an overlay, content of the upstream is fetched first.
 * `undefined` means that it does not exist; UpstreamFailure that the upstream could not be asked.
 */
export interface EnsureLocal {
  /** @throws SpoolFailed when the bytes could not be written */
  blob(route: Route, digest: Digest, caller: Caller): Promise<Pick<BlobLink, 'size' | 'origin'> | undefined>;
  /** @throws DiskFull when it could not be stored */
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

export const createEnsureLocal = (parts: EnsureLocalParts): EnsureLocal => new HeldOrFetched(parts);

class HeldOrFetched implements EnsureLocal {
  readonly #parts: EnsureLocalParts;

  constructor(parts: EnsureLocalParts) {
    this.#parts = parts;
  }

  async blob(
    route: Route,
    digest: Digest,
    caller: Caller,
  ): Promise<Pick<BlobLink, 'size' | 'origin'> | undefined> {
    const {metadata, lifecycle} = this.#parts;
    const link = await metadata.blobLink(route.repository, digest);
    const size = link && (await lifecycle.stored(digest));
    if (link && size !== undefined) return {size, origin: link.origin};
    return route.registry.hosted ? undefined : this.#upstreamBlob(route, digest, caller);
  }

  async manifest(route: Route, digest: Digest, caller: Caller): Promise<ManifestRecord | undefined> {
    const {metadata, pull} = this.#parts;
    if (route.registry.hosted) return metadata.manifest(route.repository, digest);
    return keptIn(await pull.localOrByDigest(route, digest, caller));
  }

  /** A blob that the upstream grants to this caller, downloaded unless its bytes are here. */
  async #upstreamBlob(route: Route, digest: Digest, caller: Caller) {
    const {metadata, lifecycle, access, clock} = this.#parts;
    const {repository} = route;
    const origin = 'upstream' as const;
    const grant = grantIn(await access.blob(route, digest, caller));
    if (!grant) return undefined;
    const size =
      (await lifecycle.stored(digest)) ?? (await this.#download(route, digest, grant.size, caller));
    if (size === undefined) return undefined;
    // The commit relies on the link, which is missing if there was no size, or no space, when the blob was granted.
    if (!(await metadata.blobLink(repository, digest))) {
      await metadata.commit([{type: 'blob.link', repository, digest, size, origin, at: clock.now()}]);
    }
    return {size, origin};
  }

  /**
   * Downloads a blob that this caller has access to. If it joined a download of another caller, and that failed, it starts
   * its own.
   */
  async #download(
    route: Route,
    digest: Digest,
    expected: number | undefined,
    caller: Caller,
  ): Promise<number | undefined> {
    const {fills, lifecycle} = this.#parts;
    const order = {digest, expected, isPushed: true, source: blobSource(route, digest, caller)};
    const {mine, fill} = fills.claim({...order, beganFor: accessKey(route, digest, caller)});
    const leave = fill.join(order.source);
    try {
      await fill.done;
    } catch (error) {
      if (!mine) return this.#download(route, digest, expected, caller);
      if (error instanceof BlobAbsent) return undefined;
      // Other content is neither the blob nor proof of its absence.
      if (error instanceof DigestMismatch) throw otherContent(route, digest, error);
      throw error;
    } finally {
      leave();
    }
    return lifecycle.stored(digest);
  }
}

const otherContent = (
  {registry: {upstream}}: Route,
  digest: Digest,
  cause: DigestMismatch,
): UpstreamFailure =>
  new UpstreamFailure('protocol', upstream.host, `says that it has ${digest}, but sent other content`, {
    cause,
  });
