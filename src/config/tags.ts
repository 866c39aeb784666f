import type {RegistryConfig, TagLifetimes} from '../config.ts';
import type {Settings} from './schema.ts';
import type {Tree} from './tree.ts';
import {FOREVER_MS, formatLifetime} from './units.ts';

type TagSettings = Settings['registries'][string]['tags'];
type WrittenLifetimes = {[Key in keyof TagLifetimes]?: TagLifetimes[Key] | undefined};

const DAY_MS = 86_400_000;
const DEFAULTS: TagLifetimes = {ttl: 60_000, maxStale: 7 * DAY_MS, keepDeleted: 7 * DAY_MS, absentTtl: 5000};

/** The lifetimes of all tags, and those of the tags that an entry of the list matches, which inherit what it leaves out. */
export function assembleTags(
  written: TagSettings,
  {isPassthrough}: {isPassthrough: boolean},
): Pick<RegistryConfig, 'tags' | 'tagRules'> {
  const entries = Array.isArray(written) ? written : [written];
  const others = entries.find((entry) => !('match' in entry) || entry.match === undefined);
  // What an upstream has deleted, it no longer lets anybody pull.
  const defaults = isPassthrough ? {...DEFAULTS, keepDeleted: 0} : DEFAULTS;
  const tags = lifetimesOf(others ?? {}, defaults);
  const tagRules = entries.flatMap((entry) => {
    const {match, ...lifetimes} = {match: undefined, ...entry};
    return match === undefined ? [] : {match, ...lifetimesOf(lifetimes, tags)};
  });
  return {tags, tagRules};
}

/** A tag that is never asked for again may not become unusable by its age either, unless that is written. */
function lifetimesOf(
  {ttl, maxStale, keepDeleted, absentTtl}: WrittenLifetimes,
  inherited: TagLifetimes,
): TagLifetimes {
  return {
    ttl: ttl ?? inherited.ttl,
    maxStale: maxStale ?? (ttl === FOREVER_MS ? FOREVER_MS : inherited.maxStale),
    keepDeleted: keepDeleted ?? inherited.keepDeleted,
    absentTtl: absentTtl ?? inherited.absentTtl,
  };
}

/** The same as it is written: a mapping, or a list where tags differ. */
export function describeTags({tags, tagRules}: Pick<RegistryConfig, 'tags' | 'tagRules'>): Tree | Tree[] {
  if (tagRules.length === 0) return describeLifetimes(tags);
  const rules = tagRules.map(({match, ...lifetimes}) => ({match, ...describeLifetimes(lifetimes)}));
  return [...rules, describeLifetimes(tags)];
}

const describeLifetimes = ({ttl, maxStale, keepDeleted, absentTtl}: TagLifetimes): Tree => ({
  ttl: formatLifetime(ttl),
  maxStale: formatLifetime(maxStale),
  keepDeleted: formatLifetime(keepDeleted),
  absentTtl: formatLifetime(absentTtl),
});
