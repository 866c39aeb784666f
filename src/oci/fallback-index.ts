import {type Digest, isDigest, isUnsupportedDigest} from './digest.ts';
import {isRecord} from './json.ts';
import {DOCKER_LIST, isGenericType, OCI_INDEX} from './media-type.ts';
import {type SkippedReferrer, UNSUPPORTED_DIGEST} from './referrers.ts';

/** The index that a fallback tag points to: its entries as they are written, and the text around them. */
export interface FallbackIndex {
  /** The JSON text of each entry by its digest; of two entries for one digest, the first. */
  readonly entries: ReadonlyMap<string, string>;
  /** The text up to and including the bracket that opens the list. */
  readonly before: string;
  /** The text from the bracket that closes it. */
  readonly after: string;
}

export const NO_ENTRIES: FallbackIndex = Object.freeze({
  entries: new Map<string, string>(),
  before: `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[`,
  after: ']}',
});

/**
 * Reads an index whose entries all have a digest. The entries stay text, so that those of others can be written again
 * exactly as they are (dist-spec, Referrers Tag Schema).
 * @returns undefined for anything else
 */
export function parseFallbackIndex(bytes: Uint8Array): FallbackIndex | undefined {
  const parsed = parseObject(bytes);
  const manifests = parsed?.body['manifests'];
  if (!parsed || !(Array.isArray(manifests) || manifests === null)) return undefined;
  const {text} = parsed;
  const [open, end] = listIn(text);
  // Go writes an empty list as null.
  if (manifests === null) {
    return {entries: new Map(), before: `${text.slice(0, open)}[`, after: `]${text.slice(end)}`};
  }
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

/** The entries of a fallback tag. */
export interface NamedReferrers {
  /** In the order of the tag, each once. */
  readonly digests: readonly Digest[];
  /** Entries whose digest cannot be read, or is of an algorithm that is not supported. */
  readonly skipped: readonly SkippedReferrer[];
}

/**
 * Reads which manifests a fallback tag names. Only their digests are read: the rest of an entry is not trusted.
 * @param mediaType from the header of the answer, bare and lower case, if it has one
 * @returns undefined for anything but a readable index: the answer is damaged, or the tag is something else. That is
 * never an empty list.
 */
export function referrersNamedBy(
  bytes: Uint8Array,
  mediaType: string | undefined,
): NamedReferrers | undefined {
  const body = parseObject(bytes)?.body;
  if (!body || !isIndexType(body['mediaType'], mediaType)) return undefined;
  const {manifests} = body;
  // Go writes an empty list as null.
  if (manifests === null) return {digests: [], skipped: []};
  if (!Array.isArray(manifests)) return undefined;
  const digests = new Set<Digest>();
  const skipped: SkippedReferrer[] = [];
  for (const entry of manifests) {
    const digest = isRecord(entry) ? entry['digest'] : undefined;
    if (typeof digest === 'string' && isDigest(digest)) digests.add(digest);
    else skipped.push(skippedEntry(digest));
  }
  return {digests: [...digests], skipped};
}

/** The index's own type counts, then the header's. Without either, the form of the body decides. */
function isIndexType(own: unknown, header: string | undefined): boolean {
  if (own !== undefined) return own === OCI_INDEX || own === DOCKER_LIST;
  return header === undefined || header === OCI_INDEX || header === DOCKER_LIST || isGenericType(header);
}

function skippedEntry(digest: unknown): SkippedReferrer {
  const text = typeof digest === 'string' ? digest.slice(0, 160) : 'an entry without a digest';
  const reason = isUnsupportedDigest(text) ? UNSUPPORTED_DIGEST : 'is not a digest';
  return {digest: text, reason};
}

/** The bytes as a JSON object, with its text; undefined when they are not one. */
function parseObject(bytes: Uint8Array): {text: string; body: Record<string, unknown>} | undefined {
  try {
    const text = new TextDecoder('utf8', {fatal: true, ignoreBOM: true}).decode(bytes);
    const body: unknown = JSON.parse(text);
    return isRecord(body) ? {text, body} : undefined;
  } catch {
    return undefined;
  }
}

type Span = readonly [start: number, end: number];

/** Of several lists with the name, the last one counts, as in JSON.parse. */
function listIn(text: string): Span {
  const parts = itemsOf(text, text.indexOf('{'));
  const at = parts.findLastIndex(
    ([start, end], index) => index % 2 === 0 && JSON.parse(text.slice(start, end)) === 'manifests',
  );
  return parts[at + 1] ?? [0, 0];
}

/** The values of the array that opens at `open`, or the keys and values of the object. The text must be valid JSON. */
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
