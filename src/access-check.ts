import {type Action, ANONYMOUS, type Grant} from './caller.ts';
import {systemClock} from './clock.ts';
import type {Config} from './config.ts';
import {createCurrentRegistries} from './current-registries.ts';
import {createEvents} from './events.ts';
import {createAccessPolicy, type Explanation} from './registry/access-policy.ts';
import {type Place, wordsFor} from './registry/access-rules.ts';
import {imageNamed} from './registry/image-name.ts';
import type {Registries} from './registry/registries.ts';

export interface AccessQuestion {
  /** The caller's names, its own first. */
  readonly names: readonly [string, ...string[]];
  readonly action: Action;
  /** A registry, a repository or an image as clients name it; undefined for all registries. */
  readonly place: string | undefined;
  /** Whether the request comes in through a loopback listener. */
  readonly isLocal: boolean;
  /** What the caller's own token grants; undefined for all but robots. */
  readonly bound: Grant | undefined;
}

export interface AccessAnswer extends Pick<Explanation, 'steps'> {
  readonly isAllowed: boolean;
  /** What decides: a rule, or what is missing. */
  readonly reason: string;
  readonly names: readonly string[];
  /** `pull docker.io/library/alpine:3` */
  readonly question: string;
}

/**
 * Says what a server with this configuration would decide, and why. Asks no server and no upstream.
 * @throws OciError for a place that the configuration does not have
 */
export function checkAccess(config: Config, question: AccessQuestion): AccessAnswer {
  const {names, action, place, isLocal, bound} = question;
  const parts = {via: 'access-check', env: {}, clock: systemClock, events: createEvents()};
  const current = createCurrentRegistries(config.registries, parts);
  try {
    const registries = current.get();
    const at = placeNamed(registries, place);
    const caller = {...ANONYMOUS, names, isLocal, bound};
    const {ruling, steps, names: all} = createAccessPolicy(config.access).explain(caller, at, action);
    const unserved = at.registry === undefined ? undefined : whyUnserved(registries, at, action);
    const last = steps.at(-1);
    const decisive =
      last?.match === 'decides' ? `rule ${last.rule} of access.rules (${last.text})` : undefined;
    const allowedBy =
      decisive ??
      (bound ? 'its token grants it, and no rule is about it' : 'without access.rules this is allowed');
    const reason = ruling.isAllowed ? (unserved ?? ruling.audited ?? allowedBy) : ruling.reason;
    const isAllowed = ruling.isAllowed && unserved === undefined;
    return {isAllowed, reason, names: all, question: wordsFor(action, at), steps};
  } finally {
    current.close();
  }
}

/** A name without a tag and without a digest names a repository, and not its tag `latest`. */
function placeNamed(registries: Registries, text: string | undefined): Place {
  if (text === undefined) return {registry: undefined, repository: undefined, tag: undefined};
  const whole = registries.named(text);
  if (whole) return {registry: whole.name, repository: undefined, tag: undefined};
  const {route, reference} = imageNamed(registries, text);
  const {registry, name: repository} = route.repository;
  const hasTag = !text.includes('@') && text.lastIndexOf(':') > text.lastIndexOf('/');
  return {registry, repository, tag: hasTag ? reference : undefined};
}

/** What else of the configuration refuses it. */
function whyUnserved(
  registries: Registries,
  {registry, repository}: Place,
  action: Action,
): string | undefined {
  const found = registry === undefined ? undefined : registries.named(registry);
  if (!found || action === 'admin') return undefined;
  if (action !== 'pull' && found.push.mode === 'deny')
    return `registry ${found.name} is a mirror and takes no pushes: registries.${found.name}.push is "deny"`;
  const isServed = repository === undefined || found.serves(repository as Parameters<typeof found.serves>[0]);
  return isServed ? undefined : `registries.${found.name}.repositories leaves out ${repository}`;
}
