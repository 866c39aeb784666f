import type {Content} from '../rig/image.ts';
import type {Artifact} from './catalog.ts';
import {ACCEPT, type Exchange} from './http-client.ts';
import {contentsOf, type Pushed, type RepositoryModel} from './model.ts';
import type {Random} from './random.ts';
import {excuseOf, excuseOfList, excuseOfPush, type World} from './world.ts';

const urlOf = ({server}: World, {name}: RepositoryModel, rest: string): string =>
  `${server.url}/v2/${name}/${rest}`;

/** Asks for a manifest. @param isCached it must be served whatever the upstream does. */
async function getManifest(
  world: World,
  repository: RepositoryModel,
  reference: string,
  isCached: boolean,
): Promise<Exchange & {isServed: boolean}> {
  const url = urlOf(world, repository, `manifests/${reference}`);
  const exchange = await world.ask({url, headers: {accept: ACCEPT}});
  const excuse = excuseOf(world, repository.registry, isCached);
  return {...exchange, isServed: world.judge.manifest(repository, reference, exchange, excuse)};
}

async function getBlob(
  world: World,
  repository: RepositoryModel,
  digest: string,
  isCached: boolean,
): Promise<boolean> {
  const exchange = await world.ask({url: urlOf(world, repository, `blobs/${digest}`)});
  return world.judge.blob(repository, digest, exchange, excuseOf(world, repository.registry, isCached));
}

/**
 * Pulls an image as clients do: the manifest by its tag, those of its platforms by digest, then all blobs at the same
 * time. Nothing is asked twice.
 * @returns whether all of it was served.
 */
export async function pullImage(
  world: World,
  registry: string,
  image: Artifact,
  {isCached = false}: {isCached?: boolean} = {},
): Promise<boolean> {
  const repository = world.model.repository(registry, image.repository);
  const reference = image.subject === undefined ? image.tag : image.manifest.digest;
  const top = await getManifest(world, repository, reference, isCached);
  const references = [...image.children.map(({digest}) => digest)];
  let isWhole = top.isServed;
  for (const digest of isWhole ? references : []) {
    const child = await getManifest(world, repository, digest, isCached);
    isWhole &&= child.isServed;
  }
  if (!isWhole) return false;
  const digests = [...new Set(image.blobs.map(({digest}) => digest))];
  const served = await Promise.all(digests.map((digest) => getBlob(world, repository, digest, isCached)));
  world.tally.count('blobs served', served.filter(Boolean).length);
  if (!served.every(Boolean)) return false;
  world.tally.count('pulls served');
  return true;
}

/** Asks for the list of an image's referrers. */
export async function listReferrers(
  world: World,
  registry: string,
  image: Artifact,
  {isCached = false}: {isCached?: boolean} = {},
): Promise<boolean> {
  const repository = world.model.repository(registry, image.repository);
  const subject = image.manifest.digest;
  const exchange = await world.ask({url: urlOf(world, repository, `referrers/${subject}`)});
  const isWhole = world.judge.referrers(
    repository,
    subject,
    exchange,
    excuseOfList(world, registry, isCached),
  );
  if (isWhole) world.tally.count('lists served');
  return isWhole;
}

/** Asks for a part of a blob. */
export async function getRange(
  world: World,
  registry: string,
  image: Artifact,
  random: Random,
): Promise<void> {
  const repository = world.model.repository(registry, image.repository);
  const {digest, bytes} = random.pick(image.blobs);
  const start = random.integer(0, bytes.length - 1);
  const end = random.integer(start, bytes.length - 1);
  const url = urlOf(world, repository, `blobs/${digest}`);
  const exchange = await world.ask({url, headers: {range: `bytes=${start}-${end}`}});
  const part: Content = {digest, mediaType: '', bytes: bytes.subarray(start, end + 1)};
  const status = exchange.status === 206 ? 200 : exchange.status;
  const whole = exchange.status === 200 ? [{digest, mediaType: '', bytes}] : [part];
  // A part of a blob that is not stored has no digest: while upstreams send wrong bytes, nobody can tell.
  if (world.condition.isMangled && exchange.status === 206)
    return void world.tally.count('parts that cannot be checked');
  world.judge.content(
    {...exchange, status},
    whole,
    !repository.unsure.has(digest),
    excuseOf(world, registry),
  );
}

/** Asks a repository for a blob that only another one has, and for what nobody has. */
export async function askForForeign(
  world: World,
  registry: string,
  name: string,
  foreign: Content,
): Promise<void> {
  const repository = world.model.repository(registry, name);
  if (repository.contents.has(foreign.digest)) return;
  for (const path of [`blobs/${foreign.digest}`, `manifests/${foreign.digest}`, 'manifests/no-such-tag']) {
    const exchange = await world.ask({url: urlOf(world, repository, path), headers: {accept: ACCEPT}});
    world.judge.absent(exchange, excuseOf(world, registry));
  }
}

/** Pushes an image or a referrer, its blobs in chunks of random sizes. @returns whether the manifest was accepted. */
export async function push(world: World, {registry, artifact}: Pushed, random: Random): Promise<boolean> {
  const {model, tally} = world;
  const repository = model.repository(registry, artifact.repository);
  model.pushing(registry, artifact);
  const refused = (exchange: Exchange): false => {
    tally.count('pushes refused or interrupted');
    world.judge.content(exchange, [], false, excuseOfPush(world, registry));
    return false;
  };
  for (const blob of artifact.blobs) {
    const failed = await pushBlob(world, repository, blob, random);
    if (failed) return refused(failed);
  }
  const {manifest, subject} = artifact;
  const reference = subject === undefined ? artifact.tag : manifest.digest;
  const url = urlOf(world, repository, `manifests/${reference}`);
  const headers = {'content-type': manifest.mediaType};
  const put = await world.ask({method: 'PUT', url, headers, body: manifest.bytes});
  if (put.status !== 201) return refused(put);
  model.accepted(registry, artifact);
  tally.count('pushes accepted');
  return true;
}

/** @returns the exchange that failed; undefined when the blob was accepted. */
async function pushBlob(
  world: World,
  repository: RepositoryModel,
  {digest, bytes}: Content,
  random: Random,
): Promise<Exchange | undefined> {
  const {ask, server} = world;
  const opened = await ask({method: 'POST', url: urlOf(world, repository, 'blobs/uploads/')});
  if (opened.status !== 202) return opened;
  let location = new URL(String(opened.headers.location), server.url);
  const cut = random.chance(0.5) ? random.integer(0, bytes.length) : 0;
  if (cut > 0) {
    const patched = await ask({method: 'PATCH', url: location.href, body: bytes.subarray(0, cut)});
    if (patched.status !== 202) return patched;
    location = new URL(String(patched.headers.location), server.url);
  }
  location.searchParams.set('digest', digest);
  const closed = await ask({method: 'PUT', url: location.href, body: bytes.subarray(cut)});
  return closed.status === 201 ? undefined : closed;
}

/** Checks that everything of a push is there: tag or digest, manifest, blobs, and the referrer in its subject's list. */
export async function checkPush(world: World, {registry, artifact}: Pushed): Promise<void> {
  const {model, tally} = world;
  const repository = model.repository(registry, artifact.repository);
  const before = tally.violations.length;
  const isUnsure = () => contentsOf(artifact).some(({digest}) => repository.unsure.has(digest));
  const wasUnsure = isUnsure();
  const isServed = await pullImage(world, registry, artifact, {isCached: true});
  const {subject} = artifact;
  const url = urlOf(world, repository, `referrers/${subject}`);
  const listed = subject === undefined ? undefined : await world.ask({url});
  const excuse = excuseOfList(world, registry);
  const isListed =
    subject === undefined ||
    listed === undefined ||
    world.judge.referrers(repository, subject, listed, excuse) ||
    excuse.reason !== undefined;
  tally.count('pushes checked');
  const {dying, disk} = world.condition;
  if ((isServed && isListed) || wasUnsure || isUnsure() || dying || disk !== undefined) return;
  const seen = tally.violations.slice(before).map(({promise}) => promise);
  tally.violate(
    'lost pushes',
    `${repository.name} ${artifact.tag} (${artifact.manifest.digest}): ${seen.join(', ')}`,
  );
}

/** Deletes the manifest of a push. @returns whether the deletion was accepted. */
export async function deletePush(world: World, pushed: Pushed): Promise<boolean> {
  const {registry, artifact} = pushed;
  const {model, tally, judge} = world;
  const repository = model.repository(registry, artifact.repository);
  const {digest} = artifact.manifest;
  const wasThere = !repository.unsure.has(digest);
  model.deleting(pushed);
  const exchange = await world.ask({method: 'DELETE', url: urlOf(world, repository, `manifests/${digest}`)});
  if (exchange.status !== 202) {
    judge.refused(exchange, wasThere, excuseOfPush(world, registry));
    return false;
  }
  model.deleted(pushed);
  tally.count('pushes deleted');
  return true;
}

/** Checks that what was deleted is gone: the manifest, its tag, and the referrer in its subject's list. */
export async function checkDeletion(world: World, {registry, artifact}: Pushed): Promise<void> {
  const {model, tally, judge} = world;
  const repository = model.repository(registry, artifact.repository);
  const {tag, manifest, subject} = artifact;
  const references = subject === undefined ? [tag, manifest.digest] : [manifest.digest];
  for (const reference of references) {
    const url = urlOf(world, repository, `manifests/${reference}`);
    const exchange = await world.ask({url, headers: {accept: ACCEPT}});
    judge.absent(exchange, excuseOf(world, registry), 'deletions undone');
  }
  tally.count('deletions checked');
  if (subject === undefined) return;
  const list = await world.ask({url: urlOf(world, repository, `referrers/${subject}`)});
  if (list.status === 200 && list.body.includes(manifest.digest))
    tally.violate('deletions undone', `${list.url} lists ${manifest.digest}`);
}
