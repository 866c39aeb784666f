import {OCI_INDEX} from './media-type.ts';

/** What stands under a fallback tag: its entries as they are written there, by digest, and the text around them. */
export interface FallbackIndex {
  /** The JSON text of each entry; of a digest that stands there twice, the first. */
  readonly entries: ReadonlyMap<string, string>;
  /** Everything up to and with the bracket that opens the list. */
  readonly before: string;
  /** Everything from the bracket on that closes it. */
  readonly after: string;
}

export const NO_ENTRIES: FallbackIndex = Object.freeze({
  entries: new Map<string, string>(),
  before: `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[`,
  after: ']}',
});

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * Reads an index whose every entry names a digest, without taking it apart further: what others wrote into it can be
 * written again as it was (dist-spec, Referrers Tag Schema).
 * @returns undefined for anything else
 */
export function parseFallbackIndex(bytes: Uint8Array): FallbackIndex | undefined {
  let text: string;
  let body: unknown;
  try {
    text = new TextDecoder('utf8', {fatal: true, ignoreBOM: true}).decode(bytes);
    body = JSON.parse(text);
  } catch {
    return undefined;
  }
  const manifests = isRecord(body) ? body['manifests'] : undefined;
  if (!Array.isArray(manifests)) return undefined;
  const [open, end] = listIn(text);
  const entries = new Map<string, string>();
  for (const [index, [start, stop]] of itemsOf(text, open).entries()) {
    const entry: unknown = manifests[index];
    if (!isRecord(entry) || typeof entry['digest'] !== 'string') return undefined;
    if (!entries.has(entry['digest'])) entries.set(entry['digest'], text.slice(start, stop));
  }
  return {entries, before: text.slice(0, open + 1), after: text.slice(end - 1)};
}

/** The same index with other entries, each of them JSON text. */
export const serializeFallbackIndex = ({before, after}: FallbackIndex, entries: Iterable<string>): Buffer =>
  Buffer.from(`${before}${[...entries].join(',')}${after}`);

type Span = readonly [start: number, end: number];

/** The list that counts is the last one of its name, as JSON.parse has it. */
function listIn(text: string): Span {
  const parts = itemsOf(text, text.indexOf('{'));
  const at = parts.findLastIndex(
    ([start, end], index) => index % 2 === 0 && JSON.parse(text.slice(start, end)) === 'manifests',
  );
  return parts[at + 1] ?? [0, 0];
}

/** The values of the array that opens at `open`, or the keys and values of the object, in text that is JSON. */
function itemsOf(text: string, open: number): Span[] {
  const items: Span[] = [];
  let at = afterSpace(text, open + 1);
  while (!isClosing(text[at])) {
    const end = endOfValue(text, at);
    items.push([at, end]);
    at = afterSpace(text, end);
    if (text[at] === ',' || text[at] === ':') at = afterSpace(text, at + 1);
  }
  return items;
}

const isClosing = (character: string | undefined): boolean =>
  character === ']' || character === '}' || character === undefined;

function afterSpace(text: string, at: number): number {
  let next = at;
  while (' \t\r\n'.includes(text[next] ?? '.')) next++;
  return next;
}

function endOfValue(text: string, start: number): number {
  let depth = 0;
  for (let at = start; at < text.length; at++) {
    const character = text[at];
    if (character === '"') {
      at = endOfString(text, at) - 1;
      if (depth === 0) return at + 1;
    } else if (character === '{' || character === '[') {
      depth++;
    } else if (isClosing(character)) {
      if (depth === 0) return at;
      depth--;
      if (depth === 0) return at + 1;
    } else if (depth === 0 && ', \t\r\n'.includes(character ?? '')) {
      return at;
    }
  }
  return text.length;
}

function endOfString(text: string, start: number): number {
  let at = start + 1;
  while (text[at] !== '"' && at < text.length) at += text[at] === '\\' ? 2 : 1;
  return at + 1;
}
