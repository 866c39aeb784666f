import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import {type Algorithm, algorithmOf, type Digest, digestOf} from '../../oci/digest.ts';
import {factsOf, manifestBody} from '../../oci/manifest.ts';
import type {Reference, Tag} from '../../oci/name.ts';
import {edgeOf} from '../../oci/referrers.ts';
import {type Change, DiskFull, type ManifestRecord} from '../../storage/metadata.ts';
import {type ManifestBody, UpstreamFailure} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';
import {manifestPut, manifestType} from '../stored-manifest.ts';
import type {WriteFence} from '../write-fence.ts';

/** The upstream's answer, verified and not kept yet. */
export interface Fetched {
  /** When it was asked, as the write fence counts. */
  readonly asked: number;
  /** When it was asked, in milliseconds since the epoch. */
  readonly askedAt: number;
  /** What the answer is about: it is stale when one of these is written through us meanwhile. */
  readonly references: readonly Reference[];
  /** undefined: there is no such manifest. */
  readonly found:
    | {
        readonly record: ManifestRecord;
        /** What keeps it; empty where another request is keeping it. */
        readonly changes: readonly Change[];
      }
    | undefined;
}

/** What became of an answer, and why it is not kept where it is not. */
export interface Kept {
  readonly value: ManifestRecord | undefined;
  readonly unkept: DiskFull | undefined;
}

/** Fetches manifests from the upstream and verifies them. */
export interface ManifestFetch {
  digest(route: Route, digest: Digest, caller: Caller): Promise<Fetched>;
  /** @param algorithm of the digest, where the upstream's answer does not name one */
  tag(route: Route, tag: Tag, caller: Caller, algorithm: Algorithm | undefined): Promise<Fetched>;
  /** The manifest that another request is keeping. */
  kept(digest: Digest, keeping: Promise<{value: ManifestRecord | undefined}>): Promise<Fetched>;
}

export function createManifestFetch({
  writeFence,
  clock,
}: {
  writeFence: WriteFence;
  clock: Clock;
}): ManifestFetch {
  const now = (): Pick<Fetched, 'asked' | 'askedAt'> => ({asked: writeFence.current(), askedAt: clock.now()});
  return {
    async digest(route, digest, caller) {
      const asked = now();
      const body = await route.registry.upstream.getManifest(route.repository.name, digest, caller);
      return {...asked, references: [digest], found: body && verified(route, body, digest, clock.now())};
    },
    async tag(route, tag, caller, algorithm) {
      const asked = now();
      const body = await route.registry.upstream.getManifest(route.repository.name, tag, caller);
      if (!body) return {...asked, references: [tag], found: undefined};
      const digest = body.digest ?? digestOf(body.bytes, algorithm);
      // The digest counts as well: a manifest that is deleted through us meanwhile does not come back by its tag.
      return {...asked, references: [tag, digest], found: verified(route, body, digest, clock.now())};
    },
    async kept(digest, keeping) {
      const asked = now();
      const {value: record} = await keeping;
      return {...asked, references: [digest], found: record && {record, changes: []}};
    },
  };
}

/** A manifest that is asked for alone is given even when the disk is too full to keep it. */
export async function orUnkept({found}: Fetched, kept: Promise<ManifestRecord | undefined>): Promise<Kept> {
  try {
    return {value: await kept, unkept: undefined};
  } catch (error) {
    if (!(error instanceof DiskFull)) throw error;
    return {value: found?.record, unkept: error};
  }
}

/** @throws UpstreamFailure when the bytes do not have the digest, or are not the manifest that their header claims */
function verified({registry, repository}: Route, body: ManifestBody, digest: Digest, at: number) {
  const {bytes} = body;
  const {host} = registry.upstream;
  const actual = digestOf(bytes, algorithmOf(digest));
  if (actual !== digest) {
    const reason = `answered with a manifest whose digest is ${actual}, not ${digest}`;
    throw new UpstreamFailure('protocol', host, reason);
  }
  const parsed = manifestBody(bytes);
  const facts = factsOf(parsed);
  const mediaType = manifestType(body.mediaType, facts, host);
  const edge = edgeOf({digest, mediaType, bytes}, parsed);
  const origin = 'upstream' as const;
  const record: ManifestRecord = {digest, mediaType, bytes, origin, linkedAt: at};
  return {
    record,
    changes: [manifestPut({repository, digest, mediaType, bytes, edge, facts, origin, at})],
  };
}
