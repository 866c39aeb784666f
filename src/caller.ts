/** Who asks, and with which credential. Every verb takes one. */
export interface Caller {
  /** Equal for equal credentials, never the credential itself. Part of every key that answers are shared under. */
  readonly key: string;
  /** The `Via` entries (RFC 9110, section 7.6.3) that the request arrived with, so that a loop can be seen. */
  readonly via: readonly string[];
}

export const ANONYMOUS: Caller = Object.freeze({key: 'anonymous', via: []});
