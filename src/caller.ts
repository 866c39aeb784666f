import type {OwnLogin} from './own-login.ts';

/**
 * What a caller wants to do in a repository. `attach` is to push manifests with a subject, and the blobs that they need;
 * who may push may attach. `admin` is to read what is about the server itself: its metrics, on a listener of registries.
 */
export type Action = 'pull' | 'push' | 'delete' | 'attach' | 'admin';

/** What somebody may do, and where. */
export interface Grant {
  readonly may: readonly Action[];
  /** Patterns for places, `registry/repository[:tag]`, each one that `parsePlaceGlob` reads. */
  readonly on: readonly string[];
}

/**
 * One part of what a bearer token is for, in the terms of the Docker token protocol: `repository`, the name as its client
 * writes it, and `pull`, `push`, `delete` or `*`; or `registry`, `catalog` and `*`.
 */
export interface Scope {
  readonly type: string;
  readonly name: string;
  readonly actions: readonly string[];
}

/** Who is asking, and with which credential. */
export interface Caller {
  /** Equal for callers whom an upstream cannot tell apart. Part of the key of every shared answer. Never a credential. */
  readonly key: string;
  /** What it presented for the upstream of the registry that it asks, where that takes the callers' own logins. */
  readonly login?: OwnLogin | undefined;
  /**
   * What rules call it: `anonymous`, or its own name first (`user:alice`, `robot:ci`), then those of its groups and of
   * the claims about it.
   */
  readonly names: readonly [string, ...string[]];
  /** What its own credential grants, and beyond which no rule lets it go. Undefined for all but robots. */
  readonly bound: Grant | undefined;
  /** What its bearer token is for: the door lets it do nothing else. Undefined without such a token. */
  readonly scopes: readonly Scope[] | undefined;
  /** Whether it came in through a listener that only this machine can reach. */
  readonly isLocal: boolean;
  /** The request's `Via` entries (RFC 9110, section 7.6.3), which reveal a loop. */
  readonly via: readonly string[];
}

export const ANONYMOUS: Caller = Object.freeze({
  key: 'anonymous',
  names: ['anonymous'] as const,
  bound: undefined,
  scopes: undefined,
  isLocal: true,
  via: [],
});

/** For work that goes on after the caller's request: as whom an upstream is asked, and nothing else of the request. */
export const afterRequest = ({key, login}: Caller): Caller =>
  login ? {...ANONYMOUS, key, login} : ANONYMOUS;

/** Whether nobody has logged in. */
export const isAnonymous = ({names}: Pick<Caller, 'names'>): boolean => names[0] === 'anonymous';
