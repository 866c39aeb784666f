import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {rangeLength} from '../../oci/range.ts';
import type {Metadata, ReferenceRecord} from '../../storage/metadata.ts';
import type {Route} from '../namespace.ts';
import type {Registry} from '../registries.ts';
import type {Chunk} from './push.ts';
import type {CheckedManifest} from './validate.ts';

/** How many rows of the metadata are read in a row. That happens on this thread, so waiting requests come in between. */
const ROWS_PER_TURN = 200;

/**
 * Refuses a manifest that names too much, by itself or with the indexes that it nests, and one that nests them too deeply.
 * Only what is here is looked at: no upstream is asked.
 * @throws OciError MANIFEST_INVALID
 */
export async function refuseLargeImage(
  {registry, repository}: Route,
  {digest, facts}: CheckedManifest,
  metadata: Pick<Metadata, 'manifest' | 'references'>,
): Promise<void> {
  const {children: most, depth: deepest} = registry.limits;
  const own = facts.blobs.length + facts.foreign.length + facts.manifests.length;
  if (own > most) throw tooMany(registry, `${digest} names ${own} manifests and blobs`);
  const visited = new Set<Digest>([digest]);
  let level = new Set(facts.manifests.map((child) => child.digest));
  // Each manifest once: a thousand indexes may name the same one forty thousand times each.
  const named = new Set<Digest>([digest, ...level]);
  let rows = 0;
  for (let depth = 2; level.size > 0; depth += 1) {
    if (depth > deepest) throw tooDeep(registry, digest);
    const next = new Set<Digest>();
    for (const child of level) {
      if (visited.has(child)) continue;
      visited.add(child);
      const references = await referencesOf(child);
      for (const reference of references) {
        if (reference.kind !== 'manifest') continue;
        next.add(reference.digest);
        named.add(reference.digest);
        if (named.size > most + 1)
          throw tooMany(registry, `${digest} and the indexes in it name more manifests`);
      }
      rows += 1 + references.length;
      if (rows < ROWS_PER_TURN) continue;
      rows = 0;
      await nextTurn();
    }
    level = next;
  }

  async function referencesOf(child: Digest): Promise<readonly ReferenceRecord[]> {
    return (await metadata.manifest(repository, child)) ? metadata.references(child) : [];
  }
}

const tooMany = ({name, limits}: Registry, what: string): OciError =>
  new OciError('MANIFEST_INVALID', {
    message: `${what}, and registries.${name}.limits.children allows ${limits.children}: split the index, or raise the limit`,
    limit: 'registries.NAME.limits.children',
  });

const tooDeep = ({name, limits}: Registry, digest: Digest): OciError =>
  new OciError('MANIFEST_INVALID', {
    message: `the indexes in ${digest} are nested more than ${limits.depth} manifests deep, which is the most that registries.${name}.limits.depth allows: name the manifests in fewer indexes, or raise the limit`,
    limit: 'registries.NAME.limits.depth',
  });

/**
 * The chunk, unless the blob becomes larger with it than the registry allows. Bytes whose number the client does not
 * declare are counted while they are read.
 * @param offset bytes of the upload before it
 * @throws OciError BLOB_UPLOAD_INVALID with 413, also while the bytes are read
 */
export function withinLimit({registry}: Route, chunk: Chunk, offset: number): Chunk {
  const {blob: most} = registry.limits;
  // One that does not begin where the upload ends is refused for that.
  if (most === undefined || (chunk.range && chunk.range.start !== offset)) return chunk;
  const declared = chunk.range ? rangeLength(chunk.range) : chunk.length;
  if (declared !== undefined && offset + declared > most) throw tooLarge(registry.name, most);
  return {...chunk, bytes: counted(chunk.bytes, most - offset, () => tooLarge(registry.name, most))};
}

/** Not a generator: `return` on a generator that awaits its source waits for the source's next piece. */
function counted(
  bytes: AsyncIterable<Uint8Array>,
  most: number,
  excess: () => OciError,
): AsyncIterable<Uint8Array> {
  return {
    [Symbol.asyncIterator]() {
      const source = bytes[Symbol.asyncIterator]();
      let received = 0;
      return {
        async next() {
          const next = await source.next();
          received += next.done ? 0 : next.value.length;
          if (received <= most) return next;
          // `for await` does not return what throws, and the client's body would wait for its next reader.
          await source.return?.();
          throw excess();
        },
        async return() {
          await source.return?.();
          return {done: true, value: undefined};
        },
      };
    },
  };
}

const tooLarge = (name: string, most: number): OciError =>
  new OciError('BLOB_UPLOAD_INVALID', {
    status: 413,
    message: `the blob is larger than the ${most} bytes that registries.${name}.limits.blob allows: push less, or ask the operator to raise the limit`,
    limit: 'registries.NAME.limits.blob',
  });
