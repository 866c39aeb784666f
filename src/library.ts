import {randomUUID} from 'node:crypto';
import {stat} from 'node:fs/promises';
import {join} from 'node:path';
import {connectCommands, ServerStopped} from './admin/client.ts';
import type {Artifact} from './artifact/artifact.ts';
import {attachTo} from './artifact/attach.ts';
import {listOf, type ReferrersIndex, resolveSubject, scanFor} from './artifact/list.ts';
import {createRegistryTarget} from './artifact/registry-target.ts';
import {
  createStoreTarget,
  requireRegistry,
  requireRepository,
  storedManifests,
} from './artifact/store-target.ts';
import {ArtifactError, type ArtifactTarget} from './artifact/target.ts';
import {patientClock, sleep} from './clock.ts';
import type {Config, CredentialsConfig} from './config.ts';
import {createEvents} from './events.ts';
import {openLayout} from './layout/layout.ts';
import type {BlobSource} from './oci/blob.ts';
import type {Descriptor} from './oci/descriptor.ts';
import {type Digest, parseDigest} from './oci/digest.ts';
import {OCI_INDEX} from './oci/media-type.ts';
import {parseName, parseReference} from './oci/name.ts';
import type {IngestRequest} from './registry/maintenance/ingest.ts';
import {Occupied} from './storage/folder-lock.ts';
import type {RepositoryKey} from './storage/metadata.ts';
import type {Storage} from './storage/open.ts';
import {createUpstream} from './upstream/client.ts';

/** A repository in a data folder of backref. */
export interface LocalStore {
  /** The folder with `meta.db` and `blobs/`. */
  folder: string;
  /** As the configuration names it: `docker.io`. */
  registry: string;
  repository: string;
}

/** `docker://host/name`, a repository of any registry; `oci:path`, an OCI image layout; or a local store. */
export type Target = string | LocalStore;

/** How to connect to a registry. Not used for layouts and stores. */
export interface RegistryOptions {
  /** Uses http instead of https. */
  plainHttp?: boolean;
  /** Default: anonymous. */
  credentials?: CredentialsConfig;
  /** Certificate authorities that are trusted in addition to the system's, as PEM. */
  ca?: readonly string[];
  /** Token services outside the registry's domain that may get the credentials. */
  realmHosts?: readonly string[];
  /** Hosts with private addresses that the registry may redirect to. */
  redirectHosts?: readonly string[];
}

export interface AttachOptions extends RegistryOptions {
  /** The blobs of a manifest that the target does not have yet. */
  blobs?: readonly BlobSource[];
}

export interface ListOptions extends RegistryOptions {
  /** Only referrers of this type, or of any of these; the empty string means a missing type. */
  artifactType?: string | readonly string[];
}

/** How long, and how often, to retry while another process is just opening or closing a data folder. */
const RETRY_FOR_MS = 30_000;
const RETRY_EVERY_MS = 50;
/** Milliseconds. */
const TIMEOUTS = {connect: 10_000, headers: 30_000, idle: 60_000};
const CONCURRENCY = {heads: 32, manifests: 32, bodies: 32};
const BREAKER = {failures: 5, openFor: 30_000};
const DOCKER_HUB = new Set(['docker.io', 'index.docker.io', 'registry-1.docker.io']);

/**
 * Opens a target. Does not ask a registry yet. Close the target after use.
 * @throws ArtifactError or OciError for text that does not name a target
 */
export async function openTarget(target: Target, options: RegistryOptions = {}): Promise<ArtifactTarget> {
  if (typeof target !== 'string') return openStore(target);
  if (target.startsWith('oci:')) return openLayout(target.slice('oci:'.length), patientClock);
  if (target.startsWith('docker://')) return openRegistry(target.slice('docker://'.length), options);
  throw new ArtifactError(
    `"${target}" is not a target: write docker://host/name for a repository of a registry, or oci:path for an image layout.`,
  );
}

function openRegistry(place: string, options: RegistryOptions): ArtifactTarget {
  const {plainHttp = false, credentials, ca = [], realmHosts = [], redirectHosts = []} = options;
  const slash = place.indexOf('/');
  const host = place.slice(0, Math.max(slash, 0));
  if (!/^[\w.-]+(:\d+)?$|^\[[\da-f:]+\](:\d+)?$/i.test(host)) {
    throw new ArtifactError(`"${place}" does not name a repository of a registry: write host/name.`);
  }
  const isHub = DOCKER_HUB.has(host);
  const name = place.slice(slash + 1);
  const repository = parseName(isHub && !name.includes('/') ? `library/${name}` : name);
  const url = `${plainHttp ? 'http' : 'https'}://${isHub ? 'registry-1.docker.io' : host}`;
  const upstream = createUpstream(
    {
      url,
      insecure: plainHttp,
      credentials,
      realmHosts,
      redirectHosts,
      ca,
      timeouts: TIMEOUTS,
      concurrency: CONCURRENCY,
      breaker: BREAKER,
      rateLimitStatus: 503,
      quota: 'off',
    },
    {clock: patientClock, events: createEvents(), via: 'backref'},
  );
  return createRegistryTarget(upstream, repository);
}

/** @throws ArtifactError for a folder without `meta.db`, and for one of an older version that another process is using */
async function openStored(folder: string): Promise<Storage> {
  const settings = storageIn(folder);
  const {path} = settings.metadata;
  const isThere = await stat(path).then(
    () => true,
    () => false,
  );
  if (!isThere) throw new ArtifactError(`${folder} is not a data folder of backref: it has no meta.db.`);
  // Imported only when there is a store: loading SQL takes a quarter of a second.
  const {openStorageBeside} = await import('./storage/open.ts');
  const parts = {owner: `library ${randomUUID()}`, clock: patientClock};
  return openStorageBeside(settings, parts).catch((error) => {
    if (!(error instanceof Occupied)) throw error;
    throw new ArtifactError(
      `${folder} was written by an older backref, and another process is using it: stop that one, or let it run this version, and try again.`,
      {cause: error},
    );
  });
}

/** The settings of a server that keeps everything in this folder. */
const storageIn = (folder: string): Config['storage'] => ({
  path: folder,
  blobs: {driver: 'fs', path: folder},
  metadata: {driver: 'sqlite', path: join(folder, 'meta.db')},
});

/** Closes the storage if the check fails. */
async function orClose(storage: Storage, check: Promise<void>): Promise<void> {
  try {
    await check;
  } catch (error) {
    await storage.close();
    throw error;
  }
}

const keyOf = ({registry, repository}: LocalStore): RepositoryKey => ({
  registry,
  name: parseName(repository),
});

async function openStore(store: LocalStore): Promise<ArtifactTarget> {
  const {folder} = store;
  const repository = keyOf(store);
  const storage = await openStored(folder);
  const {metadata, spools} = storage;
  await orClose(storage, requireRepository(metadata, repository));
  return createStoreTarget(repository, {
    metadata,
    spools,
    ingest: (request) => retryOn(Occupied, () => ingestIn(folder, storage, request)),
    close: () => storage.close(),
  });
}

/** The server that works on the data folder ingests the content. If there is none, this process does, under the folder's lock. */
async function ingestIn(folder: string, storage: Storage, request: IngestRequest): Promise<void> {
  const server = await connectCommands(folder);
  if (server) return server.ingest(request);
  const {lockStorage} = await import('./storage/open.ts');
  const lock = lockStorage(storageIn(folder), (_folder, error) => {
    throw error;
  });
  try {
    const {wireIngest} = await import('./wire.ts');
    await wireIngest({storage, clock: patientClock, events: createEvents()}).run(request);
  } finally {
    lock.release();
  }
}

/** Retries work that fails while another process is just opening or closing the data folder. */
async function retryOn<T>(
  failure: typeof Occupied | typeof ServerStopped,
  work: () => Promise<T>,
): Promise<T> {
  const end = patientClock.monotonic() + RETRY_FOR_MS;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof failure) || patientClock.monotonic() >= end) throw error;
    }
    await sleep(patientClock, RETRY_EVERY_MS);
  }
}

async function withTarget<T>(
  target: Target,
  options: RegistryOptions,
  use: (target: ArtifactTarget) => Promise<T>,
): Promise<T> {
  const opened = await openTarget(target, options);
  try {
    return await use(opened);
  } finally {
    await opened.close();
  }
}

/**
 * Attaches an artifact to a manifest: an SBOM, a signature, anything (distribution-spec, "Pushing Manifests with
 * Subject"). If the registry does not list it by itself, it is added to the subject's fallback tag.
 * @param subject a tag or a digest; a tag is looked up each time
 * @param artifact an image manifest, whose `subject` is set here; or data, for which a manifest is made
 * @returns the digest of the artifact's manifest
 * @throws ArtifactError, OciError or UpstreamFailure. Attaching the same artifact again is harmless.
 */
export async function attach(
  target: Target,
  subject: string,
  artifact: Artifact,
  {blobs = [], ...options}: AttachOptions = {},
): Promise<Digest> {
  const reference = parseReference(subject);
  // A server that was stopped may have consumed the staged blobs: they are staged again.
  return retryOn(ServerStopped, () =>
    withTarget(target, options, (opened) =>
      attachTo(opened, reference, artifact, {clock: patientClock, blobs}),
    ),
  );
}

/**
 * The referrers of a manifest: as the Referrers API lists them, otherwise by the referrers tag schema.
 * @param subject a tag or a digest
 * @throws ArtifactError, OciError or UpstreamFailure when they could not be listed; never returns an empty index instead
 */
export async function listReferrers(
  target: Target,
  subject: string,
  {artifactType, ...options}: ListOptions = {},
): Promise<ReferrersIndex> {
  const reference = parseReference(subject);
  const types = typeof artifactType === 'string' ? [artifactType] : artifactType;
  return withTarget(target, options, async (opened) =>
    listOf(opened, await resolveSubject(opened, reference), types),
  );
}

/**
 * Builds the index of the referrers of a manifest from the stored manifests alone, without looking at any list.
 * @param store `oci:path`, or a local store: `folder` alone means all of its repositories
 * @param subject a digest
 * @throws ArtifactError when the store or the registry does not exist, or when the store is damaged
 */
export async function indexReferrers(
  store: string | LocalStore | Pick<LocalStore, 'folder'>,
  subject: string,
): Promise<ReferrersIndex> {
  const digest = parseDigest(subject);
  const manifests = await (typeof store === 'string' ? scanLayout(store, digest) : scanStore(store, digest));
  return {schemaVersion: 2, mediaType: OCI_INDEX, manifests};
}

async function scanLayout(place: string, subject: Digest): Promise<Descriptor[]> {
  if (!place.startsWith('oci:')) throw new ArtifactError(`"${place}" is not a store: write oci:path.`);
  const layout = await openLayout(place.slice('oci:'.length), patientClock);
  return scanFor(subject, layout.manifests());
}

async function scanStore(
  store: LocalStore | Pick<LocalStore, 'folder'>,
  subject: Digest,
): Promise<Descriptor[]> {
  const within = 'repository' in store ? keyOf(store) : undefined;
  const storage = await openStored(store.folder);
  const {metadata} = storage;
  try {
    if (within) await requireRegistry(metadata, within.registry);
    return await scanFor(subject, storedManifests(metadata, within));
  } finally {
    await storage.close();
  }
}
