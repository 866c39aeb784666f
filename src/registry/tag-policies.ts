import {parseTagGlob} from '../oci/image-glob.ts';
import type {RepositoryName, Tag} from '../oci/name.ts';
import type {TagPolicy} from './freshness.ts';

/** A policy for some of a registry's tags. */
export interface TagRule {
  matches(repository: RepositoryName, tag: Tag): boolean;
  readonly policy: TagPolicy;
}

/** The policies of a registry. */
export interface TagPolicies {
  /** For its lists of tags, and for every tag that no rule matches. */
  readonly tags: TagPolicy;
  readonly tagRules: readonly TagRule[];
}

/** @param match patterns, as `parseTagGlob` reads them; anything else matches nothing */
export function createTagRule({match, ...policy}: TagPolicy & {readonly match: readonly string[]}): TagRule {
  const globs = match.flatMap((pattern) => parseTagGlob(pattern) ?? []);
  return {policy, matches: (repository, tag) => globs.some((glob) => glob.matches(repository, tag))};
}

/** The policy of one tag, as it is configured: that of the first rule that matches. */
export const policyOf = ({tags, tagRules}: TagPolicies, repository: RepositoryName, tag: Tag): TagPolicy =>
  tagRules.find((rule) => rule.matches(repository, tag))?.policy ?? tags;
