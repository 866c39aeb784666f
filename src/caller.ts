/** Who is asking, and with which credential. */
export interface Caller {
  /** Equal for equal credentials, and never the credential itself. Part of the key of every shared answer. */
  readonly key: string;
  /** The request's `Via` entries (RFC 9110, section 7.6.3), which reveal a loop. */
  readonly via: readonly string[];
}

export const ANONYMOUS: Caller = Object.freeze({key: 'anonymous', via: []});
