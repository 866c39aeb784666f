import type {Action, Caller, Grant} from '../caller.ts';
import {createLru} from '../lru.ts';
import {
  type AccessRule,
  allows,
  allowsWithin,
  type CompiledRule,
  compileRule,
  isAbout,
  type Match,
  matchPlace,
  type Place,
  wordsFor,
} from './access-rules.ts';

/** What the configuration says about who may do what. */
export interface AccessSettings {
  /** `audit` allows what the rules deny, as far as it would be allowed without rules. */
  readonly mode: 'enforce' | 'audit';
  /** Undefined where there are none. */
  readonly rules: readonly AccessRule[] | undefined;
  /** Patterns for the names of those who have `group:NAME` as a name as well. */
  readonly groups: Readonly<Record<string, readonly string[]>>;
}

export type Ruling =
  /** `audited` says why the rules would deny it, where they are not enforced. */
  | {readonly isAllowed: true; readonly audited: string | undefined}
  /** The reason says which rule decides, or what is missing, to the person who must act. */
  | {readonly isAllowed: false; readonly reason: string};

/** What each rule has to do with a request, up to the one that decides. */
export interface Explanation {
  readonly ruling: Ruling;
  /** The caller's names with those of its groups. */
  readonly names: readonly string[];
  readonly steps: readonly {readonly rule: number; readonly text: string; readonly match: Match}[];
}

/** Says who may do what: a pure function of the configuration. Asked before any content is looked for. */
export interface AccessPolicy {
  /** Whether the caller may pull everything. */
  isOpenTo(caller: Caller): boolean;
  decide(caller: Caller, place: Place, action: Action): Ruling;
  /** Which repositories of a registry the caller may pull from; undefined: none. */
  repositoryFilter(caller: Caller, registry: string): ((repository: string) => boolean) | undefined;
  /** Which tags of a repository the caller may pull; undefined where no rule that is about the two names a tag. */
  tagFilter(caller: Caller, place: Place): ((tag: string) => boolean) | undefined;
  /** How `decide` comes to its ruling. */
  explain(caller: Caller, place: Place, action: Action): Explanation;
}

/** Decisions that are remembered, and callers whose rules are. */
const MAX_DECISIONS = 10_000;
const MAX_CALLERS = 1000;
/** A caller whose names are longer, and a place whose name is, is judged each time. */
const MAX_CALLER_LENGTH = 8192;
const MAX_PLACE_LENGTH = 512;

const NO_RULE = 'no rule of access.rules allows';
const SPARED = ': without a tag, that could delete tags that the rule protects';
const ALLOWED: Ruling = Object.freeze({isAllowed: true, audited: undefined});
const NEEDS_RULE: Ruling = Object.freeze({
  isAllowed: false,
  reason:
    'without access.rules, pushes and deletions are allowed only through a listener that is bound to a loopback address: write a rule in access.rules that allows it',
});

/**
 * Without rules everybody may pull and read the server's figures, and callers on this machine may do what each registry's
 * `push` setting permits.
 */
const defaultRuling = ({isLocal}: Caller, action: Action): Ruling =>
  action === 'pull' || action === 'admin' || isLocal ? ALLOWED : NEEDS_RULE;

/** The rules decide alone, for callers of every listener; without any, the listener decides. */
export const createAccessPolicy = (settings: AccessSettings): AccessPolicy => new RulesInOrder(settings);

class RulesInOrder implements AccessPolicy {
  readonly #hasRules: boolean;
  readonly #isEnforced: boolean;
  readonly #rules: readonly CompiledRule[];
  readonly #groups: readonly {name: string; members: Pick<CompiledRule, 'who'>}[];
  readonly #decisions = createLru<string, Ruling>(MAX_DECISIONS);
  readonly #callers = createLru<string, KnownCaller>(MAX_CALLERS);
  /** The same by their lists of names: most requests come with one that was seen before. */
  readonly #lists = new WeakMap<Caller['names'], KnownCaller>();
  #lastId = 0;

  constructor({mode, rules, groups}: AccessSettings) {
    this.#hasRules = rules !== undefined;
    this.#isEnforced = mode === 'enforce';
    this.#rules = (rules ?? []).map(compileRule);
    this.#groups = Object.entries(groups).map(([name, members]) => ({
      name: `group:${name}`,
      members: compileRule({who: members, where: [], may: []}, 0),
    }));
  }

  decide(caller: Caller, place: Place, action: Action): Ruling {
    if (!this.#hasRules && !caller.bound) return defaultRuling(caller, action);
    const {registry = '', repository = '', tag} = place;
    const at = `${registry}/${repository}${tag === undefined ? '' : `:${tag}`}`;
    const key = `${this.#known(caller).id} ${action} ${caller.isLocal} ${at}`;
    const known = this.#decisions.get(key);
    if (known) return known;
    const ruling = this.#rulingFor(caller, place, action);
    if (at.length <= MAX_PLACE_LENGTH) this.#decisions.set(key, ruling);
    return ruling;
  }

  isOpenTo({bound}: Caller): boolean {
    return !bound && (!this.#hasRules || !this.#isEnforced);
  }

  repositoryFilter(caller: Caller, registry: string): ((repository: string) => boolean) | undefined {
    if (this.isOpenTo(caller)) return () => true;
    const terms = this.#enforcedFor(caller);
    const may = (repository: string | undefined) =>
      judge(terms, {registry, repository, tag: undefined}, 'pull').isAllowed;
    return may(undefined) ? may : undefined;
  }

  tagFilter(caller: Caller, place: Place): ((tag: string) => boolean) | undefined {
    if (this.isOpenTo(caller)) return undefined;
    const {grant, rules, hasRules} = this.#enforcedFor(caller);
    const narrow = (rule: CompiledRule) => narrowed(rule, place);
    const terms = {hasRules, rules: rules.map(narrow), grant: grant && narrow(grant)};
    const globs = [...terms.rules, ...(terms.grant ? [terms.grant] : [])].flatMap(({where}) => where);
    if (!globs.some(({hasTag}) => hasTag)) return undefined;
    return (tag) => judge(terms, {...place, tag}, 'pull').isAllowed;
  }

  explain(caller: Caller, place: Place, action: Action): Explanation {
    const names = this.#namesOf(caller);
    const matches = this.#rules.map((rule) => ({
      rule: rule.number,
      text: rule.text,
      match: isAbout(rule, names) ? matchOf(rule, place, action) : ('caller' as const),
    }));
    const decisive = matches.findIndex(({match}) => match === 'decides');
    return {
      ruling: this.decide(caller, place, action),
      names,
      steps: decisive === -1 ? matches : matches.slice(0, decisive + 1),
    };
  }

  #rulingFor(caller: Caller, place: Place, action: Action): Ruling {
    const terms = this.#known(caller).terms;
    const {isAllowed, by} = judge(terms, place, action);
    if (isAllowed) return ALLOWED;
    const [name] = caller.names;
    const words = wordsFor(action, place);
    if (by === 'bound') {
      const reason = `the token of ${name} (${terms.grant?.text}) is not for this: it cannot ${words}`;
      return {isAllowed: false, reason};
    }
    const without = defaultRuling(caller, action);
    if (!this.#hasRules) return without;
    const decided = by ? `rule ${by.number} of access.rules (${by.text}) does not allow` : NO_RULE;
    const reason = `${decided} ${name} to ${words}${spares(by, place, action) ? SPARED : ''}`;
    return this.#isEnforced || !without.isAllowed
      ? {isAllowed: false, reason}
      : {isAllowed: true, audited: reason};
  }

  /** Rules that are only audited hide nothing; the bound of a token is no rule. */
  #enforcedFor(caller: Caller): Terms {
    const terms = this.#known(caller).terms;
    return {...terms, hasRules: terms.hasRules && this.#isEnforced};
  }

  /** Two callers are the same one only if they have the same names and the same bound. */
  #known(caller: Caller): KnownCaller {
    const seen = this.#lists.get(caller.names);
    if (seen && seen.bound === caller.bound) return seen;
    const key = JSON.stringify([caller.names, caller.bound]);
    const known = this.#callers.get(key) ?? this.#meet(caller);
    if (key.length <= MAX_CALLER_LENGTH) this.#callers.set(key, known);
    this.#lists.set(caller.names, known);
    return known;
  }

  #meet(caller: Caller): KnownCaller {
    const {bound} = caller;
    const names = this.#namesOf(caller);
    const rules = this.#rules.filter((rule) => isAbout(rule, names));
    this.#lastId += 1;
    return {
      id: this.#lastId,
      bound,
      terms: {hasRules: this.#hasRules, rules, grant: bound && compileGrant(bound)},
    };
  }

  #namesOf({names}: Caller): Caller['names'] {
    const groups = this.#groups.filter(({members}) => isAbout(members, names));
    return [...names, ...groups.map(({name}) => name)];
  }
}

/** A caller, by what rules call it. */
interface KnownCaller {
  /** Stands for it in the keys of decisions. */
  readonly id: number;
  readonly bound: Grant | undefined;
  readonly terms: Terms;
}

const compileGrant = ({may, on}: Grant): CompiledRule => ({
  ...compileRule({who: [], where: on, may}, 0),
  text: `may: ${may.join(', ')}; on: ${on.join(', ')}`,
});

/** What counts for one caller. */
interface Terms {
  readonly hasRules: boolean;
  /** Those that are about the caller, in order. */
  readonly rules: readonly CompiledRule[];
  /** What its token was made for. */
  readonly grant: CompiledRule | undefined;
}

interface Judgement {
  readonly isAllowed: boolean;
  readonly by: CompiledRule | 'bound' | undefined;
}

/** A robot's token is a grant within its own bound: rules may take from it, and add nothing. */
function judge({hasRules, rules, grant}: Terms, place: Place, action: Action): Judgement {
  const isBound = grant && !(matchOf(grant, place, action) === 'decides' && allows(grant, action));
  if (isBound) return {isAllowed: false, by: 'bound'};
  const by = hasRules ? rules.find((rule) => matchOf(rule, place, action) === 'decides') : undefined;
  return {isAllowed: by ? allows(by, action) : grant !== undefined, by};
}

/** Whether a rule for tags denies a deletion only because it names no tag. */
const spares = (rule: CompiledRule | undefined, {repository, tag}: Place, action: Action): boolean =>
  action === 'delete' &&
  repository !== undefined &&
  tag === undefined &&
  (rule?.where.every(({hasTag}) => hasTag) ?? false);

/** A registry as a whole is open to those whom some rule allows something there; what they see of it is filtered. */
function matchOf(rule: CompiledRule, place: Place, action: Action): Match {
  if (place.repository !== undefined) return matchPlace(rule, place, action);
  return allowsWithin(rule, place, action) ? 'decides' : 'place';
}

/** The same rule for one repository: only the patterns that match it, which then need not be compared again. */
const narrowed = (rule: CompiledRule, {registry = '', repository = ''}: Place): CompiledRule => ({
  ...rule,
  where: rule.where
    .filter((glob) => glob.matchesRepository(registry, repository))
    .map((glob) => ({...glob, matchesRepository: () => true})),
});

export const WITHOUT_RULES: AccessPolicy = createAccessPolicy({
  mode: 'enforce',
  rules: undefined,
  groups: {},
});
