import type {Action, Caller} from '../caller.ts';
import {type CallerGlob, parseCallerGlob} from '../caller-glob.ts';
import {type PlaceGlob, parsePlaceGlob} from '../oci/image-glob.ts';
import {isTag} from '../oci/name.ts';
import {attachedTo} from '../oci/referrers.ts';

/** What a caller wants to do it to. */
export interface Place {
  /** Its name in the configuration; undefined for all registries. */
  readonly registry: string | undefined;
  /** Undefined for the registry as a whole. */
  readonly repository: string | undefined;
  /** Where the request names one. */
  readonly tag: string | undefined;
}

/** A rule as it is written: patterns for names of callers and for places, and what such callers may do there. */
export interface AccessRule {
  readonly who: readonly string[];
  readonly where: readonly string[];
  readonly may: readonly Action[];
}

export interface CompiledRule {
  /** Its place in the list, from 1. */
  readonly number: number;
  readonly text: string;
  readonly who: readonly CallerGlob[];
  readonly where: readonly PlaceGlob[];
  readonly may: ReadonlySet<Action>;
}

/** What a rule has to do with a request: it decides, or what it is not about. */
export type Match = 'decides' | 'caller' | 'place' | 'tag';

/** @param rule whose patterns were checked; text that is not a pattern matches nothing */
export const compileRule = ({who, where, may}: AccessRule, index: number): CompiledRule => ({
  number: index + 1,
  text: `who: ${who.join(', ')}; where: ${where.join(', ')}; may: ${may.join(', ') || 'nothing'}`,
  who: who.flatMap((text) => parseCallerGlob(text) ?? []),
  where: where.flatMap((text) => parsePlaceGlob(text) ?? []),
  may: new Set(may),
});

export const isAbout = ({who}: Pick<CompiledRule, 'who'>, names: Caller['names']): boolean =>
  who.some((glob) => names.some((name) => glob.matches(name)));

/** Who may push may attach. */
export const allows = ({may}: Pick<CompiledRule, 'may'>, action: Action): boolean =>
  may.has(action) || (action === 'attach' && may.has('push'));

type PlacedRule = Pick<CompiledRule, 'where' | 'may'>;

/**
 * Whether a rule decides about a repository. Where it names tags, it is about the requests that name such a tag. Of those
 * that name none, by digest or for blobs, uploads and lists, it decides for the better about pulls, pushes and attaching,
 * and for the worse about deletions: deleting a manifest deletes its tags, whichever they are.
 */
export function matchPlace(rule: PlacedRule, place: Place, action: Action): Match {
  const {registry = '', repository = ''} = place;
  const globs = rule.where.filter((glob) => glob.matchesRepository(registry, repository));
  if (globs.length === 0) return 'place';
  const isOfTag = ({hasTag, matchesTag}: PlaceGlob) =>
    !hasTag || (place.tag !== undefined && matchesTag(place.tag));
  if (globs.some(isOfTag)) return 'decides';
  if (namesTag(place, action)) return 'tag';
  return allows(rule, action) === (action !== 'delete') ? 'decides' : 'tag';
}

/** A tag that belongs to a digest is as good as the digest, but for its deletion. */
const namesTag = ({tag}: Place, action: Action): boolean =>
  tag !== undefined && (action === 'delete' || !isTag(tag) || attachedTo(tag) === undefined);

/** Whether a rule allows it somewhere in the registry, or in any registry where none is named. */
export const allowsWithin = (rule: PlacedRule, {registry}: Place, action: Action): boolean =>
  allows(rule, action) &&
  (registry === undefined
    ? rule.where.length > 0
    : rule.where.some((glob) => glob.matchesRegistry(registry)));

/** `pull docker.io/library/alpine:3`, for the person who must act. */
export function wordsFor(action: Action, {registry, repository, tag}: Place): string {
  if (action === 'admin') return 'operate the server';
  if (registry === undefined) return `${action} from any registry`;
  if (repository === undefined) return `${action} from ${registry}`;
  return `${action} ${registry}/${repository}${tag === undefined ? '' : `:${tag}`}`;
}
