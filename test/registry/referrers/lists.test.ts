import {join} from 'node:path';
import test from 'ava';
import {ANONYMOUS} from '../../../src/caller.ts';
import {createEvents} from '../../../src/events.ts';
import type {Descriptor} from '../../../src/oci/descriptor.ts';
import {parseName} from '../../../src/oci/name.ts';
import {createGenerations} from '../../../src/registry/generations.ts';
import {createMemory} from '../../../src/registry/memory.ts';
import type {Discovered} from '../../../src/registry/referrers/discovery.ts';
import {createReferrerLists} from '../../../src/registry/referrers/lists.ts';
import {createWriteFence} from '../../../src/registry/write-fence.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {createMovableClock} from '../../support/backref.ts';
import {type ManifestContent, plainManifest} from '../../support/content.ts';
import {createFolder} from '../../support/folder.ts';
import {referrerOf} from '../../support/referrers.ts';
import {registryOver} from '../../support/registry.ts';

const HOST = 'example.test';
const repository = {registry: HOST, name: parseName('team/app')};
const route = {registry: registryOver(HOST, {}), repository, asked: repository.name};
const subject = plainManifest();
const descriptorOf = ({digest, mediaType, bytes}: ManifestContent): Descriptor => ({
  digest,
  mediaType,
  size: bytes.length,
});
const [older, newer] = [descriptorOf(referrerOf(subject)), descriptorOf(referrerOf(subject))];
const refused = {digest: newer.digest, reason: 'refused'};

test('a request that came before a list became incomplete, and is answered afterwards, says that it is', async (t) => {
  const metadata = await openSqliteMetadata({path: join(await createFolder(t), 'meta.db')});
  t.teardown(() => metadata.close());
  const clock = createMovableClock();
  const kept = Promise.withResolvers<void>();
  const whole: Discovered = {source: 'tag', descriptors: [older, newer], skipped: [], kept: kept.promise};
  const part: Discovered = {source: 'tag', descriptors: [older], skipped: [refused], kept: Promise.resolve()};
  const answers = [whole, part];
  const lists = createReferrerLists({
    metadata,
    discovery: {
      ask: async () => answers.shift() ?? part,
      byApi: async () => undefined,
      pulledAt: async () => undefined,
    },
    memory: createMemory(0),
    generations: createGenerations(),
    writeFence: createWriteFence(),
    clock,
    events: createEvents(),
  });
  await metadata.commit([
    {
      type: 'referrer-list.put',
      repository,
      subject: subject.digest,
      source: 'tag',
      descriptors: [older],
      at: clock.now(),
    },
  ]);
  const ask = () => lists.answer(route, subject.digest, ANONYMOUS, {noCache: true});
  clock.move(2000);
  const first = ask();
  await new Promise(setImmediate);
  clock.move(2000);
  t.deepEqual((await ask()).skipped, [refused]);
  kept.resolve();
  const {report, skipped} = await first;
  t.is(report.detail, 'partial');
  t.deepEqual(skipped, [refused]);
});
