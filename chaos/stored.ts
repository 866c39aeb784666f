import {existsSync, statSync} from 'node:fs';
import {readdir} from 'node:fs/promises';
import {join} from 'node:path';
import {DatabaseSync} from 'node:sqlite';
import type {Artifact} from './catalog.ts';

/** What is in a data folder, read beside the server that works on it. */
export interface StoredState {
  /** Whether the tag, the manifests and all blobs of an image are here, and the repository may serve them. */
  holds(registry: string, image: Artifact): boolean;
  /** Whether the bytes of a blob are here. */
  hasBlob(digest: string): boolean;
  pathOf(digest: string): string;
  /** The names of partial downloads and uploads. */
  spools(): Promise<string[]>;
  /** The digests of all blob files. */
  blobs(): Promise<string[]>;
}

const MANIFEST_LINK = `select 1 from manifest join repository_manifest as link on link.manifest = manifest.id
  join repository on repository.id = link.repository
  where registry = ? and name = ? and digest = ?`;
const TAG = `select 1 from tag join repository on repository.id = tag.repository
  where registry = ? and repository.name = ? and tag.name = ? and digest = ? and gone_at is null`;
const BLOB = `select blob.size from blob join repository_blob as link on link.digest = blob.digest
  join repository on repository.id = link.repository
  where registry = ? and name = ? and blob.digest = ? and state = 'ready'`;

/** @param folder `storage.path` of the server. */
export function createStoredState(folder: string): StoredState {
  const pathOf = (digest: string) => {
    const [algorithm = '', encoded = ''] = digest.split(':');
    return join(folder, 'blobs', algorithm, encoded.slice(0, 2), encoded);
  };
  const sizeOf = (digest: string) => statSync(pathOf(digest), {throwIfNoEntry: false})?.size;

  return {
    pathOf,
    hasBlob: (digest) => existsSync(pathOf(digest)),
    holds(registry, {repository, tag, manifest, children, blobs}) {
      using database = new DatabaseSync(join(folder, 'meta.db'), {readOnly: true, timeout: 5000});
      const has = (statement: string, ...values: string[]) => database.prepare(statement).get(...values);
      return (
        has(TAG, registry, repository, tag, manifest.digest) !== undefined &&
        [manifest, ...children].every(({digest}) => has(MANIFEST_LINK, registry, repository, digest)) &&
        blobs.every(({digest}) => {
          const row = has(BLOB, registry, repository, digest);
          return row !== undefined && row['size'] === sizeOf(digest);
        })
      );
    },
    spools: () => readdir(join(folder, 'spool')).catch(() => []),
    async blobs() {
      const root = join(folder, 'blobs', 'sha256');
      const shards = await readdir(root).catch(() => []);
      const names = await Promise.all(shards.map((shard) => readdir(join(root, shard)).catch(() => [])));
      return names.flat().map((name) => `sha256:${name}`);
    },
  };
}
