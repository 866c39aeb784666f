import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {ANONYMOUS} from '../../../src/caller.ts';
import {createEvents} from '../../../src/events.ts';
import {parseName, type Tag} from '../../../src/oci/name.ts';
import {createNegativeCache} from '../../../src/registry/negative-cache.ts';
import {createTagLists} from '../../../src/registry/tags/tag-lists.ts';
import type {Change} from '../../../src/storage/metadata.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {createMovableClock} from '../../support/backref.ts';
import {createFolder} from '../../support/folder.ts';
import {registryOver} from '../../support/registry.ts';

const HOST = 'example.test';
const repository = {registry: HOST, name: parseName('team/app')};

interface Hooks {
  /** Called while the upstream is asked; `push` reports that a tag was pushed. */
  asked?(push: () => void): void;
  /** Called when a change is about to be committed. */
  committing?(change: Change | undefined, push: () => void): void;
}

/** An upstream that lists the tag "old", whatever is pushed meanwhile. */
async function setUp(t: ExecutionContext, {asked = () => {}, committing = () => {}}: Hooks) {
  const metadata = await openSqliteMetadata({path: join(await createFolder(t), 'meta.db')});
  t.teardown(() => metadata.close());
  const clock = createMovableClock();
  const pushes: Promise<void>[] = [];
  const push = () => void pushes.push(lists.changed(route, {put: ['new' as Tag], deleted: []}));
  const lists = createTagLists({
    metadata: {
      ...metadata,
      commit: async (changes, preconditions) => {
        await new Promise(setImmediate);
        committing(changes[0], push);
        return metadata.commit(changes, preconditions);
      },
    },
    access: {visibleTags: () => undefined},
    negativeCache: createNegativeCache(clock),
    clock,
    events: createEvents(),
  });
  let questions = 0;
  const registry = registryOver(HOST, {
    listTags: async () => {
      questions += 1;
      asked(push);
      return ['old'];
    },
  });
  const route = {registry, repository, asked: repository.name};
  return {
    questions: () => questions,
    list: () => lists.list(route, {n: undefined, last: undefined}, ANONYMOUS, {noCache: false}),
    pushed: () => Promise.all(pushes),
  };
}

test('a tag that is pushed while a first list is stored is in the next list', async (t) => {
  let first = true;
  const {list, pushed} = await setUp(t, {
    committing: (change, push) => {
      if (first && change?.type === 'tag-list.put') push();
      first = false;
    },
  });
  await list();
  await pushed();
  t.is((await list()).report.how, 'stale', 'the upstream is asked again');
});

test('a list is served but not kept when tags are pushed each time that it is asked for', async (t) => {
  const {list, pushed, questions} = await setUp(t, {asked: (push) => push()});
  const {entries, report} = await list();
  t.deepEqual(entries, ['old']);
  t.false(report.stored);
  const count = questions();
  await pushed();
  t.is((await list()).report.how, 'uri-miss');
  t.true(questions() > count);
});
