/** Who is asking, and with which credential. */
export interface Caller {
  /** Equal for callers whom an upstream cannot tell apart. Part of the key of every shared answer. Never a credential. */
  readonly key: string;
  /**
   * What rules call it: `anonymous`, or its own name first (`user:alice`, `robot:ci`), then those of its groups and of
   * the claims about it.
   */
  readonly names: readonly [string, ...string[]];
  /** Whether it came in through a listener that only this machine can reach. */
  readonly isLocal: boolean;
  /** The request's `Via` entries (RFC 9110, section 7.6.3), which reveal a loop. */
  readonly via: readonly string[];
}

export const ANONYMOUS: Caller = Object.freeze({
  key: 'anonymous',
  names: ['anonymous'] as const,
  isLocal: true,
  via: [],
});
