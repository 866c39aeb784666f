import {randomUUID} from 'node:crypto';
import {open, readFile, rename, rm} from 'node:fs/promises';
import {join} from 'node:path';
import {ArtifactError} from '../artifact/target.ts';
import {type Clock, sleep} from '../clock.ts';
import {errorCode} from '../error-code.ts';
import {type Descriptor, readDescriptor} from '../oci/descriptor.ts';
import type {Tag} from '../oci/name.ts';

/** The annotation that holds the tag of an entry (image-spec, "Image Layout"). */
const TAG = 'org.opencontainers.image.ref.name';
/** How often a lock is tried, and for how long. */
const LOCK_POLL_MS = 50;
const LOCK_TIMEOUT_MS = 10_000;

export interface IndexFile {
  /** The entries in their order. @throws ArtifactError for an entry that is not a readable descriptor */
  entries(): Promise<Descriptor[]>;
  tagged(tag: Tag): Promise<Descriptor | undefined>;
  /** Adds an entry unless it is there. If a tag is given, it is taken from the entry that had it. */
  add(descriptor: Descriptor, tag: Tag | undefined): Promise<void>;
}

type Index = Record<string, unknown> & {manifests: unknown[]};

const tagOf = ({annotations}: Descriptor): string | undefined => annotations?.[TAG];

/** The index.json of an image layout. It is replaced as a whole, by one writer at a time. */
export const createIndexFile = (folder: string, clock: Clock): IndexFile =>
  new LockedIndexFile(folder, clock);

class LockedIndexFile implements IndexFile {
  readonly #folder: string;
  readonly #file: string;
  readonly #lock: string;
  readonly #clock: Clock;

  constructor(folder: string, clock: Clock) {
    this.#folder = folder;
    this.#file = join(folder, 'index.json');
    this.#lock = join(folder, 'index.json.lock');
    this.#clock = clock;
  }

  async entries(): Promise<Descriptor[]> {
    const {manifests} = await this.#read();
    return manifests.map((value, index) => {
      const descriptor = readDescriptor(value);
      if (descriptor) return descriptor;
      // It may lead to a referrer of anything: a list without it would be incomplete.
      throw new ArtifactError(
        `manifests[${index}] in index.json of ${this.#folder} is not a descriptor with a sha256 or sha512 digest and a size.`,
      );
    });
  }

  async tagged(tag: Tag): Promise<Descriptor | undefined> {
    const {manifests} = await this.#read();
    return manifests.map(readDescriptor).find((entry) => entry && tagOf(entry) === tag);
  }

  async add(descriptor: Descriptor, tag: Tag | undefined): Promise<void> {
    await this.#acquire();
    try {
      const index = await this.#read();
      const manifests = withEntry(index.manifests, descriptor, tag);
      if (manifests) await this.#replace({...index, manifests});
    } finally {
      await rm(this.#lock, {force: true});
    }
  }

  async #read(): Promise<Index> {
    const index: unknown = await readFile(this.#file, 'utf8')
      .then(JSON.parse)
      .catch(() => undefined);
    if (isIndex(index)) return index;
    throw new ArtifactError(
      `${this.#folder} is not an OCI image layout: its index.json is missing or is not an image index.`,
    );
  }

  async #acquire(): Promise<void> {
    for (let waited = 0; ; waited += LOCK_POLL_MS) {
      try {
        await (await open(this.#lock, 'wx')).close();
        return;
      } catch (error) {
        if (errorCode(error) !== 'EEXIST') throw error;
      }
      if (waited >= LOCK_TIMEOUT_MS) {
        throw new ArtifactError(
          `${this.#lock} exists: another process is writing this layout. If there is none, it died while writing: remove the file.`,
        );
      }
      await sleep(this.#clock, LOCK_POLL_MS);
    }
  }

  async #replace(index: Index): Promise<void> {
    const temporary = join(this.#folder, `.index.json.${randomUUID()}`);
    try {
      const handle = await open(temporary, 'wx');
      try {
        await handle.writeFile(JSON.stringify(index));
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(temporary, this.#file);
    } catch (error) {
      await rm(temporary, {force: true});
      throw error;
    }
  }
}

/** The entries with one more; undefined when it is there already. Other entries stay as they are written. */
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

const isIndex = (value: unknown): value is Index =>
  typeof value === 'object' && value !== null && 'manifests' in value && Array.isArray(value.manifests);
