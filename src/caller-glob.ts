/** A pattern for names of callers: `anonymous`, `user:*`, `gha:repository=org/*`. */
export interface CallerGlob {
  matches(name: string): boolean;
}

/** Longer patterns are refused, so that matching one costs little. */
const MAX_LENGTH = 512;
/** Names have no control characters: a pattern that has one could not match. */
const CONTROL = /\p{Cc}/u;
const ANYBODY = new Set(['*', '**']);

/**
 * Parses a pattern for names of callers. `*` matches any characters but `/`, `**` any at all, `?` one that is not `/`; alone,
 * `*` is everybody. Everything else matches itself, so that claims may hold brackets and dots.
 * @returns undefined for an empty pattern, and for one that is too long or has control characters
 */
export function parseCallerGlob(text: string): CallerGlob | undefined {
  if (text === '' || text.length > MAX_LENGTH || CONTROL.test(text)) return undefined;
  if (ANYBODY.has(text)) return {matches: () => true};
  const wild = text.search(/[*?]/);
  if (wild === -1) return {matches: (name) => name === text};
  // Most names differ before the first wildcard, and a caller may have many.
  const start = text.slice(0, wild);
  const tokens = text.slice(wild).match(/\*{2,}|[\s\S]/gu) ?? [];
  return {matches: (name) => name.startsWith(start) && matchesTokens(tokens, [...name.slice(wild)])};
}

/** What comes before the colon, as in `user:alice`; the whole text where there is none. */
export const kindOfName = (text: string): string => text.split(':', 1)[0] ?? '';

/** Follows all positions at once: each token costs one pass, whatever the pattern. */
function matchesTokens(tokens: readonly string[], name: readonly string[]): boolean {
  let reached: boolean[] = [true, ...name.map(() => false)];
  for (const token of tokens) reached = afterToken(token, name, reached);
  return reached.at(-1) === true;
}

/** Which positions of the name are reached once a token has matched, given those that were reached before. */
function afterToken(token: string, name: readonly string[], before: readonly boolean[]): boolean[] {
  const after = before.map(() => false);
  for (let at = 0; at < before.length; at += 1) {
    const last = name[at - 1];
    if (token.startsWith('*')) {
      const crosses = last !== undefined && after[at - 1] === true && (token !== '*' || last !== '/');
      after[at] = before[at] === true || crosses;
    } else if (last !== undefined) {
      after[at] = before[at - 1] === true && (token === last || (token === '?' && last !== '/'));
    }
  }
  return after;
}
