import type {Caller} from '../caller.ts';
import type {Clock} from '../clock.ts';
import {type Algorithm, algorithmOf, type Digest, digestOf} from '../oci/digest.ts';
import {factsOf, manifestBody} from '../oci/manifest.ts';
import {isDigestReference, type Reference, type Tag} from '../oci/name.ts';
import {edgeOf} from '../oci/referrers.ts';
import type {Change, ManifestRecord, Metadata} from '../storage/metadata.ts';
import {type ManifestBody, UpstreamFailure} from '../upstream/port.ts';
import {manifestPut} from './manifest-put.ts';
import {manifestType} from './manifest-type.ts';
import type {Route} from './namespace.ts';
import {createSingleFlight} from './single-flight.ts';
import type {Writes} from './writes.ts';

export interface Pulled {
  /** undefined: the upstream says that there is no such manifest. */
  readonly value: ManifestRecord | undefined;
  readonly collapsed: boolean;
}

/** A manifest that was just fetched and committed. */
export interface Arrival {
  readonly route: Route;
  readonly record: ManifestRecord;
  /** The tag that it was asked for by. */
  readonly tag: Tag | undefined;
  readonly caller: Caller;
}

export interface ManifestPullParts {
  metadata: Metadata;
  writes: Writes;
  clock: Clock;
  /** Told of each manifest; must not throw. */
  arrived(arrival: Arrival): void;
}

/** Fetches a manifest from the upstream, verifies it and commits it, once however many wait for it. */
export interface ManifestPull {
  byDigest(route: Route, digest: Digest, caller: Caller): Promise<Pulled>;
  /**
   * Manifest and tag become one commit. `algorithm` names the digest that the tag is known by, where the upstream's
   * answer does not say.
   */
  byTag(route: Route, tag: Tag, caller: Caller, algorithm?: Algorithm): Promise<Pulled>;
}

export function createManifestPull({metadata, writes, clock, arrived}: ManifestPullParts): ManifestPull {
  const flights = createSingleFlight<ManifestRecord | undefined>();

  async function keep(
    route: Route,
    body: ManifestBody,
    digest: Digest,
    tag: Tag | undefined,
  ): Promise<ManifestRecord> {
    const {repository, registry} = route;
    const {bytes} = body;
    const parsed = manifestBody(bytes);
    const facts = factsOf(parsed);
    const mediaType = manifestType(body.mediaType, facts, registry.upstream.host);
    const at = clock.now();
    const edge = edgeOf({digest, mediaType, bytes}, parsed);
    const changes: Change[] = [
      manifestPut({repository, digest, mediaType, bytes, edge, facts, origin: 'upstream', at}),
    ];
    if (tag) changes.push({type: 'tag.put', repository, name: tag, digest, origin: 'upstream', at});
    await metadata.commit(changes);
    return {digest, mediaType, bytes, origin: 'upstream', linkedAt: at};
  }

  const keyOf = ({repository}: Route, reference: string, caller: Caller) =>
    `${repository.registry}/${repository.name} ${reference} ${caller.key}`;

  /** What was written through us while the upstream's answer was on its way. */
  async function written(route: Route, reference: Reference): Promise<ManifestRecord | undefined> {
    const {repository} = route;
    await writes.settled(route, reference);
    const digest = isDigestReference(reference)
      ? reference
      : (await metadata.tag(repository, reference))?.digest;
    return digest && metadata.manifest(repository, digest);
  }

  return {
    byDigest: (route, digest, caller) =>
      flights.run(keyOf(route, digest, caller), async () => {
        const {upstream} = route.registry;
        const asked = writes.moment();
        const body = await upstream.getManifest(route.repository.name, digest, caller);
        if (writes.overtaken(route, digest, asked)) return written(route, digest);
        if (!body) return undefined;
        verify(body, digest, upstream.host);
        const record = await keep(route, body, digest, undefined);
        arrived({route, record, tag: undefined, caller});
        return record;
      }),

    byTag: (route, tag, caller, algorithm) =>
      flights.run(keyOf(route, tag, caller), async () => {
        const {upstream} = route.registry;
        const asked = writes.moment();
        const body = await upstream.getManifest(route.repository.name, tag, caller);
        if (writes.overtaken(route, tag, asked)) return written(route, tag);
        if (!body) return undefined;
        const digest = body.digest ?? digestOf(body.bytes, algorithm);
        // Deleted through us meanwhile, it does not come back by its tag.
        if (writes.overtaken(route, digest, asked)) return written(route, digest);
        verify(body, digest, upstream.host);
        const record = await keep(route, body, digest, tag);
        arrived({route, record, tag, caller});
        return record;
      }),
  };
}

function verify({bytes}: ManifestBody, digest: Digest, host: string): void {
  const actual = digestOf(bytes, algorithmOf(digest));
  if (actual === digest) return;
  throw new UpstreamFailure(
    'protocol',
    host,
    `answered with a manifest whose digest is ${actual}, not ${digest}`,
  );
}
