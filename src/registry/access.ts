import type {Caller} from '../caller.ts';
import type {Clock} from '../clock.ts';
import type {Events} from '../events.ts';
import {algorithmOf, type Digest, plausibleSize} from '../oci/digest.ts';
import {readManifest} from '../oci/manifest.ts';
import {edgeOf} from '../oci/referrers.ts';
import type {Metadata} from '../storage/metadata.ts';
import {type ManifestHead, UpstreamFailure} from '../upstream/port.ts';
import {manifestType} from './manifest-type.ts';
import type {Route} from './namespace.ts';
import {createSingleFlight} from './single-flight.ts';
import {storeIfSpace} from './store-if-space.ts';

/** This caller may have this digest of this repository. */
export interface Grant {
  /** The content's length in bytes, where it is known. */
  readonly size: number | undefined;
}

/**
 * May this caller have this digest of this repository? Knowing a digest is not permission: the answer comes from the
 * repository's link, else from the upstream, whoever else's copy of the bytes is already here.
 *
 * A grant means allowed and `undefined` unknown to the repository; denied is thrown as the UpstreamFailure that says
 * so, like every case in which the upstream could not be asked, or did not confirm that it has these bytes: its HEAD gave
 * no length, or another one than that of the bytes that are here.
 */
export interface Access {
  /** What the repository's own link says, without asking anybody. */
  recall(route: Route, blob: Digest): Promise<Grant | undefined>;
  /** Asks the upstream by HEAD, and links the blob when it is there. */
  confirmBlob(route: Route, blob: Digest, caller: Caller): Promise<Grant | undefined>;
  /**
   * Asks the upstream by HEAD about a manifest whose bytes are here, and links it when it is there. A grant without a
   * link means that they have to be fetched: they were collected meanwhile, there is no room for the link, or the HEAD
   * named another length or digest, or no length.
   */
  confirmManifest(route: Route, manifest: Digest, caller: Caller): Promise<Grant | undefined>;
}

/** Names what a caller may have of a repository: answers are shared among those who have the same. */
export const accessKey = ({repository}: Route, digest: Digest, caller: Caller): string =>
  `${repository.registry}/${repository.name}@${digest} ${caller.key}`;

export interface AccessParts {
  metadata: Metadata;
  clock: Clock;
  events: Events;
}

export function createAccess({metadata, clock, events}: AccessParts): Access {
  const asking = createSingleFlight<Grant | undefined>();

  async function askForBlob({registry, repository}: Route, digest: Digest, caller: Caller) {
    const head = await registry.upstream.headBlob(repository.name, digest, caller);
    if (!head) return undefined;
    const stored = await metadata.blob(digest);
    if (stored) requireLength(registry.upstream.host, digest, head.size, stored.size);
    const promised = stored?.size ?? plausibleSize(digest, await metadata.promisedSize(repository, digest));
    const size = plausibleSize(digest, head.size) ?? promised;
    // Where the upstream and the manifest disagree about the length, only the bytes can tell who is right.
    if (size !== undefined && size === (promised ?? size)) {
      const link = {type: 'blob.link' as const, repository, digest, size, origin: 'upstream' as const};
      await storeIfSpace(events, 'the link of a blob', () => metadata.commit([{...link, at: clock.now()}]));
    }
    return {size};
  }

  async function askForManifest({registry, repository}: Route, digest: Digest, caller: Caller) {
    const stored = await metadata.storedManifest(digest);
    const head = await registry.upstream.headManifest(repository.name, digest, caller);
    if (!head || !stored) return undefined;
    const {bytes} = stored;
    // A GET has to prove it: some registries give no length by HEAD, or 0.
    if (!isAbout(head, digest, bytes.byteLength)) return {size: bytes.byteLength};
    const mediaType = manifestType(head.mediaType, readManifest(bytes), registry.upstream.host);
    const edge = edgeOf({digest, mediaType, bytes});
    const link = {type: 'manifest.link' as const, repository, digest, mediaType, edge};
    await storeIfSpace(events, 'the link of a manifest', () =>
      metadata.commit([{...link, origin: 'upstream', at: clock.now()}], [{type: 'manifest.stored', digest}]),
    );
    return {size: bytes.byteLength};
  }

  return {
    recall: ({repository}, blob) => metadata.blobLink(repository, blob),
    async confirmBlob(route, blob, caller) {
      return (await asking.run(accessKey(route, blob, caller), () => askForBlob(route, blob, caller))).value;
    },
    async confirmManifest(route, manifest, caller) {
      const key = `manifest ${accessKey(route, manifest, caller)}`;
      return (await asking.run(key, () => askForManifest(route, manifest, caller))).value;
    },
  };
}

/** A HEAD with another length, or with none, is not known to be about this content: it confirms nothing. */
function requireLength(host: string, digest: Digest, told: number | undefined, known: number): void {
  if (told === known) return;
  const reason =
    told === undefined
      ? `does not tell the length of ${digest}`
      : `answered HEAD of ${digest} with a length of ${told} bytes; that content has ${known}`;
  throw new UpstreamFailure('protocol', host, reason);
}

/** A registry may know the same content by a digest of another algorithm (docker-registry 2.8 does). */
function isAbout(head: ManifestHead, digest: Digest, size: number): boolean {
  if (head.size !== size) return false;
  return !head.digest || head.digest === digest || algorithmOf(head.digest) !== algorithmOf(digest);
}
