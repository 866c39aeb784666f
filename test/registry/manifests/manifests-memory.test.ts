import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {ANONYMOUS} from '../../../src/caller.ts';
import {createEvents} from '../../../src/events.ts';
import {parseName, type Reference, type Tag} from '../../../src/oci/name.ts';
import {createAccess} from '../../../src/registry/access.ts';
import {WITHOUT_RULES} from '../../../src/registry/access-policy.ts';
import {createGenerations} from '../../../src/registry/generations.ts';
import {createManifests} from '../../../src/registry/manifests/manifests.ts';
import {createMemory} from '../../../src/registry/memory.ts';
import {createNegativeCache} from '../../../src/registry/negative-cache.ts';
import {createManifestPull, type ManifestPull} from '../../../src/registry/pull/manifest.ts';
import {createTags} from '../../../src/registry/tags/tags.ts';
import {createUses} from '../../../src/registry/uses.ts';
import {createWriteFence} from '../../../src/registry/write-fence.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {createMovableClock} from '../../support/backref.ts';
import {plainManifest} from '../../support/content.ts';
import {createFolder} from '../../support/folder.ts';
import {registryOver} from '../../support/registry.ts';

const image = plainManifest();
const repository = {registry: 'example.test', name: parseName('team/app')};

/** Manifests of an upstream with one image, which is deleted right after it arrived here. */
async function setUp(t: ExecutionContext) {
  const metadata = await openSqliteMetadata({path: join(await createFolder(t), 'meta.db')});
  t.teardown(() => metadata.close());
  const clock = createMovableClock();
  const memory = createMemory(2 ** 20);
  const negativeCache = createNegativeCache(clock);
  const writeFence = createWriteFence();
  const generations = createGenerations();
  const events = createEvents();
  let deleted = false;
  const registry = registryOver(repository.registry, {
    getManifest: async () => (deleted ? undefined : image),
  });
  const real = createManifestPull({metadata, writeFence, clock, arrived: () => {}});
  const deleting = async <T>(pulled: Promise<T>): Promise<T> => {
    const value = await pulled;
    deleted = true;
    await metadata.commit([{type: 'manifest.delete', repository, digest: image.digest}]);
    memory.forgetManifest(repository, image.digest);
    return value;
  };
  const pull: ManifestPull = {
    localOrByDigest: (...asked) => real.localOrByDigest(...asked),
    coming: (...asked) => real.coming(...asked),
    byDigests: (...asked) => real.byDigests(...asked),
    byDigest: (...asked) => deleting(real.byDigest(...asked)),
    byTag: (...asked) => deleting(real.byTag(...asked)),
  };
  const tags = createTags({metadata, pull, negativeCache, writeFence, generations, clock, events});
  const access = createAccess({metadata, memory, policy: () => WITHOUT_RULES, clock, events});
  const uses = createUses({metadata, clock});
  const manifests = createManifests({
    metadata,
    access,
    pull,
    tags,
    negativeCache,
    uses,
    generations,
    events,
    arrived: () => {},
  });
  const route = {registry, repository, asked: repository.name};
  return (reference: Reference) => manifests.get(route, reference, ANONYMOUS, {noCache: false});
}

for (const [how, reference] of [
  ['digest', image.digest],
  ['tag', 'v1' as Tag],
] as const) {
  test(`a manifest that is deleted while it arrives by ${how} does not stay in memory`, async (t) => {
    const get = await setUp(t);
    t.deepEqual((await get(reference)).bytes, image.bytes);
    await t.throwsAsync(() => get(image.digest), {message: /has no manifest/});
  });
}
