import {DatabaseSync} from 'node:sqlite';
import {digestOf} from '../../src/oci/digest.ts';
import {OCI_MANIFEST} from '../../src/oci/media-type.ts';
import {parseName, parseTag} from '../../src/oci/name.ts';
import type {Change, RepositoryKey} from '../../src/storage/metadata.ts';
import {createCommit} from '../../src/storage/sql/commit.ts';
import {compileWrites} from '../../src/storage/sql/metadata.ts';
import type {Steps} from '../../src/storage/sql/statement.ts';
import {createCompiler, openSqliteMetadata} from '../../src/storage/sqlite/metadata.ts';
import {prepareOnce} from '../../src/storage/sqlite/prepared.ts';

export const REGISTRY = 'docker.io';
const PER_REPOSITORY = 1000;
const PER_TRANSACTION = 20_000;
/** Each manifest is stored a millisecond after the one before it: what is kept in the order of time grows at its end. */
const AT = Date.UTC(2026, 0, 1);

/** A small image manifest, about 400 bytes, with one layer of its own; the same for the same name. */
export function smallManifest(name: string) {
  const layer = digestOf(Buffer.from(`layer of ${name}`));
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: {
        mediaType: 'application/vnd.oci.image.config.v1+json',
        digest: digestOf(Buffer.from('{}')),
        size: 2,
      },
      layers: [{mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: layer, size: 1000}],
    }),
  );
  return {digest: digestOf(bytes), bytes, mediaType: OCI_MANIFEST, layer};
}

const repositoryOf = (name: string): RepositoryKey => ({registry: REGISTRY, name: parseName(name)});

/** Stores a copy of a manifest, as a pull does. @param number of milliseconds since the first one */
export function putManifest(
  repository: string,
  manifest: ReturnType<typeof smallManifest>,
  number: number,
): Change {
  const {layer, ...rest} = manifest;
  return {
    type: 'manifest.put',
    repository: repositoryOf(repository),
    ...rest,
    edge: undefined,
    references: [{digest: layer, size: 1000, kind: 'blob'}],
    origin: 'upstream',
    at: AT + number,
  };
}

/** The repository that holds the manifest of a number, and its path below a server. */
export const repositoryNumber = (number: number): string =>
  `library/app-${Math.floor(number / PER_REPOSITORY)}`;
export const pathOf = (number: number): string =>
  `/v2/${repositoryNumber(number)}/manifests/${smallManifest(`${number}`).digest}`;

/**
 * Fills a database with `count` manifests, using the server's own statements in large transactions.
 * @param path of the file, which does not exist
 * @param evicted how many further manifests the repository `library/evicted` has, each with a tag
 */
export async function fillDatabase(
  path: string,
  count: number,
  {evicted, say}: {evicted: number; say: (line: string) => void},
): Promise<void> {
  await (await openSqliteMetadata({path})).close();
  const database = new DatabaseSync(path);
  database.exec('pragma synchronous = off; pragma cache_size = -1000000; pragma temp_store = memory');
  const run = prepareOnce(database);
  const commit = createCommit(compileWrites(createCompiler()));
  const drive = (steps: Steps<boolean>) => {
    for (let next = steps.next(); !next.done; ) next = steps.next(run(next.value.sql, next.value.parameters));
  };
  try {
    for (let start = 0; start < count; start += PER_TRANSACTION) {
      database.exec('begin immediate');
      for (let number = start; number < Math.min(count, start + PER_TRANSACTION); number++)
        drive(commit([putManifest(repositoryNumber(number), smallManifest(`${number}`), number)], []));
      database.exec('commit');
      if (start > 0 && start % (5 * PER_TRANSACTION) === 0) say(`${start.toLocaleString('en-US')} manifests`);
    }
    database.exec('begin immediate');
    for (let number = 0; number < evicted; number++) drive(commit(evictedImage(number, count), []));
    database.exec('commit; pragma wal_checkpoint(truncate)');
  } finally {
    database.close();
  }
}

export const EVICTED = 'library/evicted';

function evictedImage(number: number, before: number): Change[] {
  const manifest = smallManifest(`evicted ${number}`);
  return [
    putManifest(EVICTED, manifest, before + number),
    {
      type: 'tag.put',
      repository: repositoryOf(EVICTED),
      name: parseTag(`${number}`),
      digest: manifest.digest,
      origin: 'upstream',
      at: AT + before + number,
    },
  ];
}
