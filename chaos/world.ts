import type {Scope} from '../rig/scope.ts';
import type {Artifact} from './catalog.ts';
import type {Clients} from './clients.ts';
import type {Disk} from './disk.ts';
import type {Ask} from './http-client.ts';
import type {Excuse, Judge} from './judge.ts';
import type {Model} from './model.ts';
import type {ServerUnderTest} from './server.ts';
import type {StoredState} from './stored.ts';
import type {Tally} from './tally.ts';
import type {Upstream} from './upstream.ts';

/** Everything that a step works with. */
export interface World {
  scope: Scope;
  server: ServerUnderTest;
  disk: Disk;
  clients: Clients;
  stored: StoredState;
  /** By the name of the registry that has it. */
  upstreams: ReadonlyMap<string, Upstream>;
  /** What can be pulled, by registry. */
  images: ReadonlyMap<string, readonly Artifact[]>;
  model: Model;
  judge: Judge;
  tally: Tally;
  ask: Ask;
  /** What fails at the moment. */
  condition: Condition;
}

export interface Condition {
  /** How upstreams fail. */
  upstreams: string | undefined;
  /** Some of them send wrong bytes. */
  isMangled: boolean;
  /** How the disk fails, where pulls may fail with it. */
  disk: string | undefined;
  /** Why pushes may be refused, while pulls go on. */
  pushes: string | undefined;
  /** The process is being ended, or is not up again. */
  dying: boolean;
}

export const CALM: Condition = {
  upstreams: undefined,
  isMangled: false,
  disk: undefined,
  pushes: undefined,
  dying: false,
};

/** How an answer of this registry may fail now. @param isCached everything that it needs is in the cache. */
export function excuseOf({condition, model}: World, registry: string, isCached = false): Excuse {
  const needsUpstream = !isCached && !model.isHosted(registry);
  const reason = condition.disk ?? (needsUpstream ? condition.upstreams : undefined);
  const {isMangled, dying} = condition;
  return {reason, isMangled, dying};
}

/** How a push may fail now. */
export function excuseOfPush(world: World, registry: string): Excuse {
  const excuse = excuseOf(world, registry);
  return {...excuse, reason: excuse.reason ?? world.condition.pushes};
}

/**
 * How a list of referrers may fail now. One that an upstream brings is stored before it is served, because it is paged: a
 * list that is not known yet is 507 on a full disk.
 */
export const excuseOfList = (world: World, registry: string, isCached = false): Excuse =>
  isCached || world.model.isHosted(registry)
    ? excuseOf(world, registry, isCached)
    : excuseOfPush(world, registry);
