import {randomUUID} from 'node:crypto';
import {stat} from 'node:fs/promises';
import {join} from 'node:path';
import {connectCommands, ServerStopped} from './admin/client.ts';
import type {Artifact} from './artifact/artifact.ts';
import {attachTo} from './artifact/attach.ts';
import {listOf, type ReferrersIndex, scanFor} from './artifact/list.ts';
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
import {isDigestReference, parseName, parseReference, type Reference} from './oci/name.ts';
import {createBlobLifecycle} from './registry/blobs/lifecycle.ts';
import {createIngest, type IngestParts, type IngestRequest} from './registry/maintenance/ingest.ts';
import {Occupied} from './storage/folder-lock.ts';
import type {RepositoryKey} from './storage/metadata.ts';
import type {Storage} from './storage/open.ts';
import {createUpstream} from './upstream/client.ts';

/** A repository in the data folder of a backref. */
export interface LocalStore {
  /** The folder with `meta.db` and `blobs/`. */
  folder: string;
  /** As the configuration names it: `docker.io`. */
  registry: string;
  repository: string;
}

/** `docker://host/name`, a repository of any registry; `oci:path`, an OCI image layout; or a local store. */
export type Target = string | LocalStore;

/** How a registry is spoken to. Layouts and stores need none of it. */
export interface RegistryOptions {
  /** Speaks http instead of https. */
  plainHttp?: boolean;
  /** Default: anonymous. */
  credentials?: CredentialsConfig;
  /** PEM texts of authorities that are trusted besides the system's. */
  ca?: readonly string[];
  /** Token services outside the registry's domain that may be shown the credentials. */
  realmHosts?: readonly string[];
  /** Hosts with private addresses that the registry may redirect to. */
  redirectHosts?: readonly string[];
}

export interface AttachOptions extends RegistryOptions {
  /** The content of a manifest's blobs, as far as it is not there yet. */
  blobs?: readonly BlobSource[];
}

export interface ListOptions extends RegistryOptions {
  /** Only those of this type, or of any of these; the empty string stands for a missing one. */
  artifactType?: string | readonly string[];
}

/** Milliseconds for which a data folder is tried again that somebody else is just taking or leaving. */
const PATIENCE = 30_000;
/** Milliseconds between two times. */
const RETRY = 50;
/** Milliseconds. */
const TIMEOUTS = {connect: 10_000, headers: 30_000, idle: 60_000};
const CONCURRENCY = {heads: 32, manifests: 32, bodies: 32};
const BREAKER = {failures: 5, openFor: 30_000};
const DOCKER_HUB = new Set(['docker.io', 'index.docker.io', 'registry-1.docker.io']);

/**
 * Opens what artifacts can be attached in. Asks no registry yet. Close it after use.
 * @throws ArtifactError or OciError for a target that is none.
 */
export async function openTarget(target: Target, options: RegistryOptions = {}): Promise<ArtifactTarget> {
  if (typeof target !== 'string') return openStore(target);
  if (target.startsWith('oci:')) return openLayout(target.slice('oci:'.length), patientClock);
  if (target.startsWith('docker://')) return openRegistry(target.slice('docker://'.length), options);
  throw new ArtifactError(
    `"${target}" is no target: write docker://host/name for a repository of a registry, or oci:path for an image layout.`,
  );
}

function openRegistry(place: string, options: RegistryOptions): ArtifactTarget {
  const {plainHttp = false, credentials, ca = [], realmHosts = [], redirectHosts = []} = options;
  const slash = place.indexOf('/');
  const host = place.slice(0, Math.max(slash, 0));
  if (!/^[\w.-]+(:\d+)?$|^\[[\da-f:]+\](:\d+)?$/i.test(host)) {
    throw new ArtifactError(`"${place}" names no repository of a registry: write host/name.`);
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
    },
    {clock: patientClock, events: createEvents(), via: 'backref'},
  );
  return createRegistryTarget(upstream, repository);
}

/** @throws ArtifactError for a folder without `meta.db`. */
async function openStored(folder: string): Promise<Storage> {
  const settings = storageIn(folder);
  const {path} = settings.metadata;
  const isThere = await stat(path).then(
    () => true,
    () => false,
  );
  if (!isThere) throw new ArtifactError(`${folder} is no data folder of backref: it has no meta.db.`);
  // Loaded only where there is a store: SQL costs a command a quarter of a second.
  const {openStorage} = await import('./storage/open.ts');
  return openStorage(settings, {owner: `library ${randomUUID()}`, clock: patientClock});
}

/** A data folder that a server keeps everything in. */
const storageIn = (folder: string): Config['storage'] => ({
  path: folder,
  blobs: {driver: 'fs', path: folder},
  metadata: {driver: 'sqlite', path: join(folder, 'meta.db')},
});

/** A store of which something is required is closed where it lacks that. */
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
    ingest: (request) => patiently(Occupied, () => ingestIn(folder, storage, request)),
    close: () => storage.close(),
  });
}

/** By the server that works on a data folder, else here while nobody else may. */
async function ingestIn(
  folder: string,
  {metadata, store, spools}: Storage,
  request: IngestRequest,
): Promise<void> {
  const server = await connectCommands(folder);
  if (server) return server.ingest(request);
  const {lockStorage} = await import('./storage/open.ts');
  const lock = lockStorage(storageIn(folder), (_folder, error) => {
    throw error;
  });
  try {
    const lifecycle = createBlobLifecycle({store, metadata, clock: patientClock});
    await createIngest({metadata, spools, lifecycle, clock: patientClock, ...NOTHING_HELD}).run(request);
  } finally {
    lock.release();
  }
}

/** Where no server runs, nothing is held in memory that a change would have to reach. */
const NOTHING_HELD: Pick<IngestParts, 'tags' | 'memory'> = {
  tags: {write: (_place, _references, commit) => commit()},
  memory: {keepManifest: () => {}},
};

/** Does something again that fails while somebody else is just taking a data folder, or leaving it. */
async function patiently<T>(
  passing: typeof Occupied | typeof ServerStopped,
  work: () => Promise<T>,
): Promise<T> {
  const end = patientClock.monotonic() + PATIENCE;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof passing) || patientClock.monotonic() >= end) throw error;
    }
    await sleep(patientClock, RETRY);
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

/** The digest that a reference means now. A digest means itself, also where the target has no such manifest. */
export async function resolveSubject(target: ArtifactTarget, reference: Reference): Promise<Digest> {
  if (isDigestReference(reference)) return reference;
  const manifest = await target.manifest(reference);
  if (manifest) return manifest.digest;
  throw new ArtifactError(`${target.name} has no manifest ${reference}.`);
}

/**
 * Attaches an artifact to a manifest: an SBOM, a signature, anything (distribution-spec, "Pushing Manifests with
 * Subject"). Where the registry does not list it by itself, the subject's fallback tag is kept up.
 * @param subject a tag or a digest; what it means is looked up afresh.
 * @param artifact an image manifest, whose `subject` is set; or data, for which a manifest is made.
 * @returns the digest of the artifact's manifest.
 * @throws ArtifactError, OciError or UpstreamFailure. To attach the same again does no harm.
 */
export async function attach(
  target: Target,
  subject: string,
  artifact: Artifact,
  {blobs = [], ...options}: AttachOptions = {},
): Promise<Digest> {
  const reference = parseReference(subject);
  // A server that was stopped may have used up what was staged for it.
  return patiently(ServerStopped, () =>
    withTarget(target, options, (opened) =>
      attachTo(opened, reference, artifact, {clock: patientClock, blobs}),
    ),
  );
}

/**
 * What refers to a manifest: as the Referrers API lists it, else by the referrers tag schema.
 * @param subject a tag or a digest.
 * @throws ArtifactError, OciError or UpstreamFailure when that cannot be told; never an empty index instead.
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
 * Builds the index of what refers to a manifest from nothing but the stored manifests themselves.
 * @param store `oci:path`, or a local store: `folder` alone for all of its repositories.
 * @param subject a digest.
 * @throws ArtifactError when there is no such store or registry, or when the store is damaged.
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
  if (!place.startsWith('oci:')) throw new ArtifactError(`"${place}" is no store: write oci:path.`);
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
