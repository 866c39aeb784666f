import {randomUUID} from 'node:crypto';
import {open, readFile, rename, rm} from 'node:fs/promises';
import {join} from 'node:path';
import {ArtifactError} from '../artifact/target.ts';
import {type Clock, sleep} from '../clock.ts';
import {errorCode} from '../error-code.ts';
import {type Descriptor, readDescriptor} from '../oci/descriptor.ts';
import type {Tag} from '../oci/name.ts';

/** The annotation of an entry of index.json that holds its tag (image-spec, "Image Layout"). */
const TAG = 'org.opencontainers.image.ref.name';
/** Milliseconds between two looks at a lock, and for which it is waited for. */
const LOCK_PAUSE = 50;
const LOCK_PATIENCE = 10_000;

export interface IndexFile {
  /** What stands in index.json, in its order. @throws ArtifactError for an entry that cannot be followed */
  entries(): Promise<Descriptor[]>;
  tagged(tag: Tag): Promise<Descriptor | undefined>;
  /** Adds an entry unless it is there; the tag, if there is one, leaves the entry that had it. */
  add(descriptor: Descriptor, tag: Tag | undefined): Promise<void>;
}

type Index = Record<string, unknown> & {manifests: unknown[]};

const tagOf = ({annotations}: Descriptor): string | undefined => annotations?.[TAG];

/** The index.json of an image layout. It is replaced as a whole, and by one writer at a time. */
export function createIndexFile(folder: string, clock: Clock): IndexFile {
  const file = join(folder, 'index.json');
  const lock = join(folder, 'index.json.lock');

  const read = async (): Promise<Index> => {
    const index: unknown = await readFile(file, 'utf8')
      .then(JSON.parse)
      .catch(() => undefined);
    if (isIndex(index)) return index;
    throw new ArtifactError(
      `${folder} is no OCI image layout: its index.json is missing or is no image index.`,
    );
  };
  const entries = async (): Promise<Descriptor[]> =>
    (await read()).manifests.map((value, index) => {
      const descriptor = readDescriptor(value);
      if (descriptor) return descriptor;
      // What it leads to may refer to anything: a list without it would pass for the whole one.
      throw new ArtifactError(
        `manifests[${index}] in index.json of ${folder} is not a descriptor with a sha256 or sha512 digest and a size.`,
      );
    });

  const acquire = async (): Promise<void> => {
    for (let waited = 0; ; waited += LOCK_PAUSE) {
      try {
        await (await open(lock, 'wx')).close();
        return;
      } catch (error) {
        if (!isExisting(error)) throw error;
      }
      if (waited >= LOCK_PATIENCE) {
        throw new ArtifactError(
          `${lock} is there: another process writes this layout. If none does, one has died there: remove the file.`,
        );
      }
      await sleep(clock, LOCK_PAUSE);
    }
  };

  const replace = async (index: Index): Promise<void> => {
    const temporary = join(folder, `.index.json.${randomUUID()}`);
    try {
      const handle = await open(temporary, 'wx');
      try {
        await handle.writeFile(JSON.stringify(index));
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(temporary, file);
    } catch (error) {
      await rm(temporary, {force: true});
      throw error;
    }
  };

  return {
    entries,
    async tagged(tag) {
      const descriptors = (await read()).manifests.map(readDescriptor);
      return descriptors.find((entry) => entry && tagOf(entry) === tag);
    },
    async add(descriptor, tag) {
      await acquire();
      try {
        const index = await read();
        const manifests = withEntry(index.manifests, descriptor, tag);
        if (manifests) await replace({...index, manifests});
      } finally {
        await rm(lock, {force: true});
      }
    },
  };
}

/** The entries with one more; undefined when it stands there as it should. Other entries stay as they are written. */
function withEntry(
  manifests: readonly unknown[],
  descriptor: Descriptor,
  tag: Tag | undefined,
): unknown[] | undefined {
  const isSame = (value: unknown): boolean => {
    const entry = readDescriptor(value);
    return entry?.digest === descriptor.digest && (tag === undefined || tagOf(entry) === tag);
  };
  if (manifests.some(isSame)) return undefined;
  if (tag === undefined) return [...manifests, descriptor];
  const others = manifests.filter((value) => {
    const entry = readDescriptor(value);
    return entry === undefined || tagOf(entry) !== tag;
  });
  return [...others, {...descriptor, annotations: {...descriptor.annotations, [TAG]: tag}}];
}

const isExisting = (error: unknown): boolean => errorCode(error) === 'EEXIST';

const isIndex = (value: unknown): value is Index =>
  typeof value === 'object' && value !== null && 'manifests' in value && Array.isArray(value.manifests);
