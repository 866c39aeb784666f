import type {Events} from '../events.ts';
import type {Tag} from '../oci/name.ts';
import type {Quota} from '../upstream/port.ts';
import {ageOf, type CacheReport, type Lifespan, type TagPolicy} from './freshness.ts';
import type {Generations} from './generations.ts';
import type {Route} from './namespace.ts';
import type {Registries, Registry} from './registries.ts';
import {policyOf} from './tag-policies.ts';

/** When lifetimes begin to widen, and how far. */
interface Widening {
  /** The share of the limit that is left when they begin to widen. */
  readonly from: number;
  /** The share of the limit's window that a lifetime reaches when nothing is left. */
  readonly reach: number;
}

const WIDENINGS: Record<Exclude<Registry['quota'], 'off'>, Widening> = {
  gentle: {from: 0.5, reach: 0.25},
  strict: {from: 1, reach: 1},
};

/** Where the upstream names no window. */
const DEFAULT_WINDOW_MS = 60 * 60_000;
/** An upstream that names a longer window does not decide that tags stay as they are for longer. */
const MAX_WINDOW_MS = 24 * 60 * 60_000;
/** The share of the limit that is left for what clients ask for: below it, nothing is fetched in advance. */
const MIN_SPARE = 0.25;

/**
 * How long an answer is used without asking, the longer the less is left of the upstream's rate limit. Pure. It widens
 * from its own length to a share of the window in equal ratios, so a lifetime of 0, which asks each time, stays 0.
 * @param policy milliseconds; the result is never shorter than `ttl`, and never longer than the greater of `ttl` and
 * `maxStale`
 * @param quota as the upstream reported it; undefined when it has not
 * @returns milliseconds
 */
export function widenedTtl(
  {ttl, maxStale}: Pick<TagPolicy, 'ttl' | 'maxStale'>,
  mode: Registry['quota'],
  quota: Quota | undefined,
): number {
  if (mode === 'off' || !quota) return ttl;
  const {from, reach} = WIDENINGS[mode];
  const window = Math.min(quota.window ?? DEFAULT_WINDOW_MS, MAX_WINDOW_MS);
  const longest = Math.min(Math.floor(reach * window), maxStale);
  if (ttl <= 0 || longest <= ttl) return ttl;
  const scarcity = Math.max(0, 1 - shareLeft(quota) / from);
  return Math.round(ttl ** (1 - scarcity) * longest ** scarcity);
}

/** Whether lifetimes are wider than configured. */
const isWidening = (mode: Registry['quota'], quota: Quota): boolean =>
  mode !== 'off' && shareLeft(quota) < WIDENINGS[mode].from;

export interface QuotaWatchParts {
  registries(): Registries;
  generations: Pick<Generations, 'endQuota'>;
  events: Events;
}

/** Ends what depends on the rate limit of an upstream, when it reports what changes lifetimes. */
export function watchQuotas({registries, generations, events}: QuotaWatchParts): void {
  const widened = new Set<string>();
  events.on('upstream.quota', ({host, ...quota}) => {
    const isWidened = registries().all.some(
      (registry) => registry.upstream.host === host && isWidening(registry.quota, quota),
    );
    if (isWidened || widened.has(host)) generations.endQuota(host);
    if (isWidened) widened.add(host);
    else widened.delete(host);
  });
}

/** A lifetime that the upstream's rate limit permits now. */
export interface Lifetime {
  /** Milliseconds, as the next one. */
  readonly ttl: number;
  /** Without the rate limit. */
  readonly configuredTtl: number;
  /** How long that stays so, unless the upstream reports something else of its rate limit. Milliseconds. */
  readonly lasts: number;
}

/** The lifetime of what this registry's policy is about. */
export function lifetimeOf(
  {quota: mode, upstream}: Pick<Registry, 'quota' | 'upstream'>,
  policy: Pick<TagPolicy, 'ttl' | 'maxStale'>,
): Lifetime {
  const quota = upstream.quota();
  return {
    ttl: widenedTtl(policy, mode, quota),
    configuredTtl: policy.ttl,
    lasts: quota?.left ?? Number.POSITIVE_INFINITY,
  };
}

/** A policy with its lifetime of now. */
export type CurrentPolicy = TagPolicy & Lifetime;

const currentPolicy = (registry: Registry, policy: TagPolicy): CurrentPolicy => ({
  ...policy,
  ...lifetimeOf(registry, policy),
});

/** The policy of one tag now. */
export const tagPolicy = ({registry, repository}: Route, tag: Tag): CurrentPolicy =>
  currentPolicy(registry, policyOf(registry, repository.name, tag));

/** The policy of a registry's lists of tags now. */
export const tagListPolicy = (registry: Registry): CurrentPolicy => currentPolicy(registry, registry.tags);

/** May more be asked of this upstream than what clients ask for? */
export function hasSpare({quota, upstream}: Registry): boolean {
  const reported = upstream.quota();
  return quota === 'off' || !reported || shareLeft(reported) >= MIN_SPARE;
}

/**
 * The report of an answer that is served without asking. Where only a widened lifetime permits that, it says so.
 * @param times when the upstream was asked, and when the answer is given: milliseconds since the epoch
 */
export function hitReport(
  {checkedAt, now}: {checkedAt: number; now: number},
  {ttl, configuredTtl, lasts}: Lifetime,
): CacheReport {
  const age = now - checkedAt;
  const shown = ageOf(age, ttl);
  const isWidened = age >= configuredTtl;
  // Each of these changes what the report says.
  const nextAge = (shown.age + 1) * 1000;
  const nextTtl = ttl - (shown.ttl - 1) * 1000;
  const widening = isWidened ? Number.POSITIVE_INFINITY : configuredTtl;
  const until = Math.min(checkedAt + Math.min(nextAge, nextTtl, widening), now + lasts);
  const lifespan = {checkedAt, ttl, configuredTtl, until: Math.min(checkedAt + ttl, now + lasts)};
  return {
    how: 'hit',
    ...shown,
    ...(isWidened ? {detail: 'quota'} : {}),
    steady: {from: now, until, lifespan},
  };
}

/** The report of the same answer at a later time, before the end of its lifespan. */
export const agedReport = ({checkedAt, ttl, configuredTtl, until}: Lifespan, now: number): CacheReport =>
  hitReport({checkedAt, now}, {ttl, configuredTtl, lasts: until - now});

/** A limit of 0 does not say anything: such an upstream would never answer. */
const shareLeft = ({limit, remaining}: Quota): number => (limit > 0 ? Math.min(1, remaining / limit) : 1);
