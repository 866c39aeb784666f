import type {Action, Caller} from '../caller.ts';

/** What a caller wants to do it to. */
export interface Place {
  /** Its name in the configuration; undefined for all registries. */
  readonly registry: string | undefined;
  /** Undefined for the registry as a whole. */
  readonly repository: string | undefined;
  /** Where the request names one. */
  readonly tag: string | undefined;
}

/** @template Reason says which rule decides, or what is missing, to the person who must act */
export type Ruling = {readonly isAllowed: true} | {readonly isAllowed: false; readonly reason: string};

/** Says who may do what: a pure function of the configuration. Asked before any content is looked for. */
export interface AccessPolicy {
  decide(caller: Caller, place: Place, action: Action): Ruling;
}

const ALLOWED: Ruling = Object.freeze({isAllowed: true});

/** Without rules everybody may pull, and callers on this machine may do what each registry's `push` setting permits. */
export const WITHOUT_RULES: AccessPolicy = Object.freeze({
  decide: ({isLocal}: Caller, _place: Place, action: Action): Ruling =>
    action === 'pull' || isLocal ? ALLOWED : NEEDS_RULE,
});

const NEEDS_RULE: Ruling = Object.freeze({
  isAllowed: false,
  reason:
    'without access.rules, pushes and deletions are allowed only through a listener that is bound to a loopback address',
});
