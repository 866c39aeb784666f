/** A JSON object, which an array is not. */
export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Deeper than any format of the specifications, and shallow enough for recursive readers. */
const MAX_DEPTH = 100;

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_ARRAY = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_ARRAY = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;

/** The keys of an object that is being read; `empty` before the first one, so that a million of `{}` cost nothing. */
type OpenContainer = Set<string> | 'empty' | 'array';

/**
 * Checks JSON text, before it is parsed, for two dangers: nesting that is expensive to build, and duplicate keys, of which
 * parsers take either one (RFC 8259, section 4), so that two readers may see different content under one digest. Does not
 * check that the text is JSON.
 * @returns what is wrong, as the end of a sentence; undefined when nothing is.
 */
export function jsonFault(text: string): string | undefined {
  const levels: OpenContainer[] = [];
  let keyNext = false;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case OPEN_OBJECT:
      case OPEN_ARRAY:
        keyNext = text.charCodeAt(at) === OPEN_OBJECT;
        levels.push(keyNext ? 'empty' : 'array');
        if (levels.length > MAX_DEPTH) return `is nested deeper than ${MAX_DEPTH} levels`;
        break;
      case CLOSE_OBJECT:
      case CLOSE_ARRAY:
        levels.pop();
        break;
      case COMMA:
        keyNext = levels.at(-1) !== 'array';
        break;
      case COLON:
        keyNext = false;
        break;
      case QUOTE: {
        const end = endOfString(text, at);
        if (keyNext) {
          const key = keyIn(text.slice(at, end + 1));
          if (!added(levels, key)) return `has the key "${key.slice(0, 80)}" twice in one object`;
        }
        at = end;
        break;
      }
    }
  }
  return undefined;
}

/** The position of the closing quote of the string that begins at `start`; the end of the text if there is none. */
function endOfString(text: string, start: number): number {
  for (let end = start; ; ) {
    end = text.indexOf('"', end + 1);
    if (end === -1) return text.length;
    let backslashes = 0;
    while (text.charCodeAt(end - 1 - backslashes) === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return end;
  }
}

/** Decodes a key: the same one can be written in many ways. */
function keyIn(literal: string): string {
  if (!literal.includes('\\')) return literal.slice(1, -1);
  try {
    return JSON.parse(literal);
  } catch {
    return literal;
  }
}

/** False when the innermost object already has the key. */
function added(levels: OpenContainer[], key: string): boolean {
  const last = levels.length - 1;
  const level = levels[last];
  if (level === undefined || level === 'array') return true;
  const keys = level === 'empty' ? new Set<string>() : level;
  if (keys.has(key)) return false;
  levels[last] = keys.add(key);
  return true;
}
