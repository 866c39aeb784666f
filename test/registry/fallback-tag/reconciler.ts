import {join} from 'node:path';
import type {ExecutionContext} from 'ava';
import {ANONYMOUS} from '../../../src/caller.ts';
import {createEvents, type EventMap} from '../../../src/events.ts';
import type {Digest} from '../../../src/oci/digest.ts';
import {readManifest} from '../../../src/oci/manifest.ts';
import {edgeOf} from '../../../src/oci/referrers.ts';
import {createReconcile} from '../../../src/registry/fallback-tag/reconcile.ts';
import {createReconciler, type Reconciler} from '../../../src/registry/fallback-tag/reconciler.ts';
import {createFallbackTagStore} from '../../../src/registry/fallback-tag/upstream-tag.ts';
import {createGenerations} from '../../../src/registry/generations.ts';
import type {Route} from '../../../src/registry/namespace.ts';
import {createNegativeCache} from '../../../src/registry/negative-cache.ts';
import {createManifestPull} from '../../../src/registry/pull/manifest.ts';
import {createCapabilities, createDiscovery} from '../../../src/registry/referrers/discovery.ts';
import {createFallbackTags} from '../../../src/registry/referrers/fallback-tag.ts';
import {createRegistries, type ReferrersPolicy, type Registry} from '../../../src/registry/registries.ts';
import {manifestPut} from '../../../src/registry/stored-manifest.ts';
import {createTags, type Tags} from '../../../src/registry/tags/tags.ts';
import {createWriteFence} from '../../../src/registry/write-fence.ts';
import {createLeases} from '../../../src/storage/claims.ts';
import type {Metadata, PendingTagChange} from '../../../src/storage/metadata.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {createManualClock, type ManualClock} from '../../support/clock.ts';
import type {ManifestContent} from '../../support/content.ts';
import {createFolder} from '../../support/folder.ts';
import {createClient, repository} from '../../support/upstream.ts';

/** A reconciler of the fallback tags of `team/app` at one upstream, without a server. Its clock stands still. */
export interface RunningReconciler {
  readonly reconciler: Reconciler;
  readonly metadata: Metadata;
  readonly clock: ManualClock;
  readonly route: Route;
  /** The names of the `referrers.tag-…` events, in their order. */
  readonly heard: (keyof EventMap)[];
  readonly tags: Tags;
  /** Commits a manifest that was pushed, with the pending change of its subject's tag. */
  pushed(referrer: ManifestContent): Promise<void>;
  /** The same, and waits for the tag. */
  attach(referrer: ManifestContent): Promise<void>;
  /** Commits that a referrer was deleted. */
  deleted(referrer: ManifestContent): Promise<void>;
  journal(): Promise<PendingTagChange[]>;
  /** Advances the clock to the next reconciliation, and waits for its end. */
  later(ms: number): Promise<void>;
  /** Gives the registry another upstream and other settings, as a reload does. */
  reconfigure(url: string, changes?: Partial<Registry>): void;
  /** Ends it like a killed process, and starts another one. */
  restart(options?: Pick<ReconcilerOptions, 'clock'>): Promise<RunningReconciler>;
}

export interface ReconcilerOptions {
  folder?: string;
  clock?: ManualClock;
  owner?: string;
  mode?: ReferrersPolicy['mode'];
  metadata?: Metadata;
  /** Replaces the metadata. */
  wrap?(real: Metadata): Metadata;
  /** Called for work that failed, which otherwise fails the test. */
  onFault?(error: unknown): void;
}

export async function startReconciler(
  t: ExecutionContext,
  url: string,
  options: ReconcilerOptions = {},
): Promise<RunningReconciler> {
  const {folder, clock = createManualClock(), owner = 'test', mode = 'tag', metadata: given} = options;
  const {wrap = (real) => real, onFault = (error) => t.fail(String(error))} = options;
  const path = join(folder ?? (await createFolder(t)), 'meta.db');
  const opened = given ?? (await openSqliteMetadata({path}));
  if (!given) t.teardown(() => opened.close());
  const metadata = wrap(opened);
  const registryAt = (upstream: string): Registry => {
    const {client} = createClient(t, upstream, {
      concurrency: {heads: 32, manifests: 32, bodies: 32},
      breaker: {failures: 1000, openFor: 1},
    });
    return {
      name: 'upstream.test',
      aliases: [],
      hosts: [],
      library: false,
      serves: () => true,
      upstream: client,
      hosted: false,
      approvals: undefined,
      push: {mode: 'through', writer: client},
      maxManifest: 4 * 1024 * 1024,
      limits: {children: 50_000, depth: 8, blob: undefined, repository: undefined},
      tags: {ttl: 60_000, maxStale: 60_000, keepDeleted: 0, absentTtl: 5000},
      tagRules: [],
      referrers: {mode, ttl: 60_000, maxStale: 60_000, prefetch: 'off'},
      rateLimitStatus: 503,
      quota: 'gentle',
    };
  };
  const registry = registryAt(url);
  const route: Route = {
    registry,
    repository: {registry: registry.name, name: repository},
    asked: repository,
  };
  const events = createEvents();
  const heard: (keyof EventMap)[] = [];
  for (const name of [
    'referrers.tag-pending',
    'referrers.tag-written',
    'referrers.tag-unusable',
    'referrers.tag-failed',
  ] as const) {
    events.on(name, () => heard.push(name));
  }
  events.on('background.failed', ({error}) => onFault(error));
  const writeFence = createWriteFence();
  const pull = createManifestPull({metadata, writeFence, clock, arrived: () => {}});
  const tags = createTags({
    metadata,
    pull,
    negativeCache: createNegativeCache(clock),
    writeFence,
    generations: createGenerations(),
    clock,
    events,
  });
  const capabilities = createCapabilities(clock, events);
  const discovery = createDiscovery({capabilities, fallbackTags: createFallbackTags({metadata, pull})});
  let running = 0;
  let idle = Promise.withResolvers<void>();
  const reconcile = createReconcile({
    metadata,
    capabilities,
    discovery,
    pull,
    upstreamTags: createFallbackTagStore({metadata, tags, clock, events}),
    coordination: createLeases({metadata, owner, clock}),
    clock,
    events,
  });
  const counted = {
    async run(...question: Parameters<typeof reconcile.run>) {
      running += 1;
      try {
        return await reconcile.run(...question);
      } finally {
        running -= 1;
        if (running === 0) {
          idle.resolve();
          idle = Promise.withResolvers();
        }
      }
    },
  };
  let registries = createRegistries([registry], undefined);
  const reconciler = createReconciler({
    metadata,
    reconcile: counted,
    registries: () => registries,
    clock,
    events,
  });
  const close = async () => {
    const closed = reconciler.close();
    await clock.advance(1000);
    await closed;
  };
  t.teardown(close);
  let change = 0;

  async function commitChange(
    {digest, bytes, mediaType}: ManifestContent,
    kind: 'add' | 'remove',
  ): Promise<Digest> {
    const edge = edgeOf({digest, bytes, mediaType});
    if (!edge) throw new Error('a referrer has a subject');
    const at = clock.now() + change++;
    const origin = 'upstream' as const;
    const row = {repository: route.repository, subject: edge.subject, digest, change: kind, at};
    const facts = readManifest(bytes);
    await metadata.commit([
      kind === 'add'
        ? manifestPut({repository: route.repository, digest, bytes, mediaType, edge, facts, origin, at})
        : {type: 'manifest.delete', repository: route.repository, digest},
      {type: 'tag-journal.put', entry: {...row, writtenAt: undefined}},
    ]);
    return edge.subject;
  }

  return {
    reconciler,
    metadata,
    clock,
    route,
    heard,
    tags,
    pushed: async (referrer) => void (await commitChange(referrer, 'add')),
    attach: async (referrer) => reconciler.settle(route, await commitChange(referrer, 'add'), ANONYMOUS),
    deleted: async (referrer) => reconciler.settle(route, await commitChange(referrer, 'remove'), ANONYMOUS),
    journal: () => metadata.pendingTagChanges(undefined, 1000),
    async later(ms) {
      const reconciled = idle.promise;
      await clock.advance(ms);
      await reconciled;
      // The reconciler continues right after the end.
      await new Promise(setImmediate);
    },
    reconfigure(upstream, changes = {}) {
      registries = createRegistries([{...registryAt(upstream), ...changes}], undefined);
    },
    async restart(changes = {}) {
      await close();
      return startReconciler(t, url, {clock, mode, metadata, owner: `${owner}'`, ...changes});
    },
  };
}
