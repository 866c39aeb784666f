import type {Clock} from '../../src/clock.ts';
import {createCurrentRegistries} from '../../src/current-registries.ts';
import {createEvents, type Events} from '../../src/events.ts';
import {createAccessPolicy} from '../../src/registry/access-policy.ts';
import {createGenerations, type Generations} from '../../src/registry/generations.ts';
import {type Route, routeOf} from '../../src/registry/namespace.ts';
import type {Registries} from '../../src/registry/registries.ts';
import type {BlobStore} from '../../src/storage/blob-store.ts';
import {createLeases} from '../../src/storage/claims.ts';
import type {Disk, DiskState} from '../../src/storage/disk.ts';
import type {Metadata} from '../../src/storage/metadata.ts';
import {openStorage, type Storage} from '../../src/storage/open.ts';
import type {Spools} from '../../src/storage/spool.ts';
import {type Wired, wire} from '../../src/wire.ts';
import {type BackrefOptions, configOf} from './backref.ts';
import {createFolder} from './folder.ts';
import type {Lifetime} from './shared.ts';

/** The parts of a server over real storage, in the test's own process and without a listener in front. */
export interface InProcess<C extends Clock> extends Wired {
  readonly storage: Storage;
  readonly generations: Generations;
  readonly clock: C;
  readonly events: Events;
  /** Everything that is kept. */
  readonly folder: string;
  registries(): Registries;
  /** Where a request for this repository of the default registry is routed. */
  route(name: string): Route;
  /** The same over what this one leaves behind, as another process finds it. */
  restart(): Promise<InProcess<C>>;
}

export interface WiredOptions<C extends Clock> extends Pick<BackrefOptions, 'registries' | 'config'> {
  clock: C;
  folder?: string;
  /** Names this process among those that share the metadata. */
  owner?: string;
  /** Takes the place of the metadata for everything that is wired. */
  metadata?(real: Metadata): Metadata;
  /** Takes the place of what the disks say. */
  disk?(real: Disk): Disk;
  /** Takes the place of the blob store. */
  store?(real: BlobStore): BlobStore;
  /** Takes the place of the spools. */
  spools?(real: Spools): Spools;
}

/** A disk that says what a test wants. */
export const withState = (real: Disk, state: () => Promise<DiskState>): Disk => ({
  ...real,
  measure: state,
  async space() {
    const {size, free} = await state();
    return {size, free};
  },
});

/** Wires what a server with this configuration consists of. The first registry is the default one, `docker.io`. */
export async function wireInProcess<C extends Clock>(
  t: Lifetime,
  options: WiredOptions<C>,
): Promise<InProcess<C>> {
  const {clock, owner = 'test'} = options;
  const folder = options.folder ?? (await createFolder(t));
  const config = configOf(options, folder, 0);
  const opened = await openStorage(config.storage, {owner, clock});
  t.teardown(() => opened.close());
  const metadata = options.metadata?.(opened.metadata) ?? opened.metadata;
  const storage = {
    ...opened,
    metadata,
    leases: createLeases({metadata, owner, clock}),
    disk: options.disk?.(opened.disk) ?? opened.disk,
    store: options.store?.(opened.store) ?? opened.store,
    spools: options.spools?.(opened.spools) ?? opened.spools,
  };
  const events = createEvents();
  const registries = createCurrentRegistries(config.registries, {via: owner, env: {}, clock, events});
  t.teardown(() => registries.close());
  const policy = createAccessPolicy(config.access);
  const generations = createGenerations();
  const wired = wire(config, {
    storage,
    generations,
    registries: () => registries.get(),
    policy: () => policy,
    logins: () => config.access,
    isStopping: () => false,
    requests: () => ({inFlight: () => 0, handOver: async () => {}}),
    limits: {openConnections: 0, settings: config.limits},
    env: {},
    clock,
    events,
  });
  return {
    ...wired,
    storage,
    generations,
    clock,
    events,
    folder,
    registries: () => registries.get(),
    route: (name) => routeOf(registries.get(), {name, ns: undefined, host: undefined}),
    async restart() {
      await opened.close();
      return wireInProcess(t, {...options, folder});
    },
  };
}
