import {access, mkdir, stat, symlink, writeFile} from 'node:fs/promises';
import {createServer, request} from 'node:http';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import {text} from 'node:stream/consumers';
import test, {type ExecutionContext} from 'ava';
import {connectCommands, ServerStopped} from '../../src/admin/client.ts';
import type {Commands} from '../../src/admin/commands.ts';
import {socketPath} from '../../src/admin/protocol.ts';
import {createAdminSocket} from '../../src/admin/socket.ts';
import {digestOf} from '../../src/oci/digest.ts';
import {OCI_MANIFEST} from '../../src/oci/media-type.ts';
import {parseName, parseReference} from '../../src/oci/name.ts';
import {createUploadId} from '../../src/oci/upload.ts';
import type {IngestRequest} from '../../src/registry/maintenance/ingest.ts';
import {Occupied} from '../../src/storage/folder-lock.ts';
import {startBackref} from '../support/backref.ts';
import {createFolder} from '../support/folder.ts';
import {nodeServerAt} from '../support/node-servers.ts';

const NEVER = new AbortController().signal;
const RESULT = {manifests: 3, edges: 2, removed: 1};
const WALK = {
  tags: 1,
  indexed: 1,
  manifests: 1,
  referrers: 0,
  requests: 1,
  complete: true,
  stopped: undefined,
  failures: [],
  failed: 0,
};
const SOUND = {blobs: 1, manifests: 1, bytes: 1, unrecorded: 0, sizes: 0, copies: 0, local: 0, bad: []};
const READY = {images: 0, pulls: 0, verifies: 0, readiness: []};
const WARM = {images: 0, finished: 0, failed: 0, bytes: 0, warmed: []};
const USAGE = {
  lines: [],
  more: {lines: 0, uniqueBytes: 0},
  totals: {
    images: 0,
    blobs: 0,
    spools: 0,
    quarantine: 0,
    database: 1,
    used: 1,
    unrooted: {blobs: 0, bytes: 0},
  },
};
const REMOVED = {removed: 0, spared: 0, bytes: 0, removedImages: [], sparedImages: [], unmatched: []};
const BACKED_UP = {manifests: 1, tags: 1, blobs: 2, copied: 3, bytes: 10, missing: 0};
const RESTORED = {manifests: 1, tags: 1, blobs: 2, bytes: 10, keptTags: 0};
const NOTHING = {uploads: 0, indexes: 0, links: 0, manifests: 0, blobs: 0, bytes: 0};

const ROBOT = {
  name: 'ci',
  may: ['pull'],
  on: ['**'],
  created: '2026-01-01T00:00:00.000Z',
  expires: null,
  isExpired: false,
  lastUsed: null,
};

const REQUEST: IngestRequest = {
  repository: {registry: 'r.test', name: parseName('team/app')},
  reference: parseReference('1'),
  mediaType: OCI_MANIFEST,
  bytes: Buffer.from([0, 255, 128]),
  blobs: [{digest: digestOf(Buffer.from('a')), spool: createUploadId()}],
};

/** Commands that a test controls. */
const commandsOf = (changes: Partial<Commands> = {}): Commands => ({
  async reindex({progress}) {
    progress({...RESULT, done: 0.5});
    return RESULT;
  },
  index: async () => WALK,
  collect: async () => NOTHING,
  who: async ({digest}) => ({digest, pulls: []}),
  createRobot: async () => ({...ROBOT, secret: 's'}),
  robots: async () => ({robots: [ROBOT]}),
  revokeRobot: async () => ROBOT,
  verify: async () => SOUND,
  ready: async () => READY,
  warm: async () => WARM,
  usage: async () => USAGE,
  remove: async () => REMOVED,
  pin: async () => ({pins: []}),
  unpin: async () => ({pins: []}),
  pins: async () => ({images: [], patterns: []}),
  backup: async () => BACKED_UP,
  restore: async () => RESTORED,
  ingest: async () => {},
  ...changes,
});

async function listening(
  t: ExecutionContext,
  changes: Partial<Commands> = {},
  folder?: string,
  failed: (error: Error) => void = (error) => t.fail(error.message),
) {
  const place = folder ?? (await createFolder(t));
  const socket = createAdminSocket({
    folder: place,
    commands: commandsOf(changes),
    failed,
  });
  t.teardown(() => socket.close());
  await socket.listen();
  const client = await connectCommands(place);
  if (!client) throw new Error('no server answers');
  return {folder: place, socket, client, path: await socketPath(place)};
}

const isThere = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  );

test('a failure to accept connections is reported, not fatal', async (t) => {
  const heard: string[] = [];
  const {client, path} = await listening(t, {}, undefined, ({message}) => heard.push(message));
  (await nodeServerAt({path})).emit('error', new Error('accept EMFILE'));
  t.deepEqual(heard, ['accept EMFILE']);
  t.deepEqual(await client.collect({grace: 0, ...noProgress}), NOTHING);
});

const noProgress = {signal: NEVER, progress: () => {}};

test('a command’s progress and result arrive unchanged', async (t) => {
  const {client} = await listening(t);
  const steps: unknown[] = [];
  t.deepEqual(await client.reindex({signal: NEVER, progress: (step) => steps.push(step)}), RESULT);
  t.deepEqual(steps, [{...RESULT, done: 0.5}]);
});

test('a command’s options arrive, and its error message comes back', async (t) => {
  const received: unknown[] = [];
  const {client} = await listening(t, {
    async index({repository, budget}) {
      received.push({repository, budget});
      throw new Error('docker.io: limits our rate');
    },
  });
  const options = {repository: 'library/alpine', budget: 7, ...noProgress};
  await t.throwsAsync(() => client.index(options), {message: 'docker.io: limits our rate'});
  t.deepEqual(received, [{repository: 'library/alpine', budget: 7}]);
});

test('what du and rm are asked arrives', async (t) => {
  const received: unknown[] = [];
  const {client} = await listening(t, {
    async usage({by, top}) {
      received.push({by, top});
      return USAGE;
    },
    async remove({images, dryRun}) {
      received.push({images, dryRun});
      return REMOVED;
    },
  });
  t.deepEqual(await client.usage({by: 'repository', top: 3, ...noProgress}), USAGE);
  t.deepEqual(await client.remove({images: ['docker.io/**'], dryRun: true, ...noProgress}), REMOVED);
  t.deepEqual(received, [
    {by: 'repository', top: 3},
    {images: ['docker.io/**'], dryRun: true},
  ]);
});

test('the images that a command names arrive', async (t) => {
  const images = ['alpine:3', 'ghcr.io/org/app:1'];
  const pins = [{image: 'docker.io/library/alpine:3', isHere: true, wasPinned: false}];
  const {client} = await listening(t, {
    async pin(options) {
      t.deepEqual(options, {images});
      return {pins};
    },
  });
  t.deepEqual(await client.pin({images}), {pins});
});

test('the socket is only for its owner, is in the data folder, and is removed with the server', async (t) => {
  const {socket, folder, path} = await listening(t);
  t.is(path, join(folder, 'backref.sock'));
  t.is((await stat(path)).mode & 0o777, 0o600);
  await socket.close();
  await socket.close();
  t.false(await isThere(path));
  t.is(await connectCommands(folder), undefined);
});

test('nothing answers in a folder that is empty or does not exist', async (t) => {
  const folder = await createFolder(t);
  t.is(await connectCommands(folder), undefined);
  t.is(await connectCommands(join(folder, 'none')), undefined);
});

test('a socket that a dead process left behind is replaced', async (t) => {
  const folder = await createFolder(t);
  const path = join(folder, 'backref.sock');
  await writeFile(path, '');
  const {client} = await listening(t, {}, folder);
  t.deepEqual(await client.reindex(noProgress), RESULT);
});

test('the socket of a folder whose path is too long for one is among the temporary files', async (t) => {
  const folder = join(await createFolder(t), 'a'.repeat(100));
  await mkdir(folder);
  const {client, path, socket} = await listening(t, {}, folder);
  t.is(dirname(path), tmpdir());
  t.true(Buffer.byteLength(path) <= 100);
  t.not(path, await socketPath(`${folder}b`));
  t.deepEqual(await client.reindex(noProgress), RESULT);
  await socket.close();
  t.false(await isThere(path));
});

test('a command whose client disconnects is aborted, and the next one works', async (t) => {
  const ended = Promise.withResolvers<void>();
  const {client} = await listening(t, {
    reindex: ({signal, progress}) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          ended.resolve();
          reject(signal.reason);
        });
        progress({...RESULT, done: 0});
      }),
  });
  const leaving = new AbortController();
  const reason = new Error('interrupted');
  const work = client.reindex({signal: leaving.signal, progress: () => leaving.abort(reason)});
  t.is(await t.throwsAsync(work), reason);
  await ended.promise;
  t.like(await client.index({repository: 'a', budget: 1, ...noProgress}), {complete: true});
});

test('a server that is stopped aborts its commands and says why', async (t) => {
  const {client, socket} = await listening(t, {
    reindex: ({signal, progress}) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason));
        progress({...RESULT, done: 0});
      }),
  });
  const closing = Promise.withResolvers<void>();
  const work = client.reindex({signal: NEVER, progress: () => socket.close().then(closing.resolve)});
  await t.throwsAsync(work, {instanceOf: ServerStopped, message: 'the server is being stopped'});
  await closing.promise;
});

test('content whose ingestion has begun is stored completely, even if the server is stopped meanwhile', async (t) => {
  const made = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const {client, socket} = await listening(t, {
    async ingest() {
      begun.resolve();
      await made.promise;
    },
  });
  const work = client.ingest(REQUEST);
  await begun.promise;
  const closing = socket.close();
  made.resolve();
  await t.notThrowsAsync(work);
  await closing;
  await t.throwsAsync(client.ingest(REQUEST), {instanceOf: ServerStopped});
});

test('content to ingest arrives unchanged', async (t) => {
  const ingested: IngestRequest[] = [];
  const {client} = await listening(t, {ingest: async (request) => void ingested.push(request)});
  await client.ingest(REQUEST);
  t.deepEqual(ingested, [REQUEST]);
});

test('a server that dies before it is done is reported', async (t) => {
  const folder = await createFolder(t);
  const server = createServer((_request, response) => {
    response.write('{"progress":{}}\n', () => response.destroy());
  });
  await new Promise<void>((resolve) => void server.listen(join(folder, 'backref.sock'), resolve));
  t.teardown(() => void server.close());
  const client = await connectCommands(folder);
  await t.throwsAsync(async () => client?.reindex(noProgress), {
    instanceOf: ServerStopped,
    message: 'the server ended before it was done: run the command again',
  });
});

test('an unknown command, and invalid options, are reported', async (t) => {
  const {path} = await listening(t);
  const post = (command: string, body: string) =>
    new Promise<[number | undefined, string]>((resolve, reject) => {
      request({socketPath: path, path: command, method: 'POST'}, async (response) =>
        resolve([response.statusCode, await text(response)]),
      )
        .once('error', reject)
        .end(body);
    });
  const [status, body] = await post('/polish', '{}');
  t.is(status, 404);
  t.regex(body, /^\{"error":\{"message":"this server has no command \/polish/);
  t.regex((await post('/index', '{"repository":"a","budget":0}'))[1], /budget/);
  t.regex((await post('/index', 'x'))[1], /^\{"error":/);
  for (const command of ['/backup', '/restore'])
    t.regex((await post(command, '{"folder":"a"}'))[1], /absolute path/);
  const {name: repository} = REQUEST.repository;
  const options = {
    registry: 'r.test',
    repository,
    reference: '1',
    mediaType: OCI_MANIFEST,
    bytes: '',
    blobs: [],
  };
  const wrong: [Record<string, unknown>, RegExp][] = [
    [{repository: '../a'}, /repository name/],
    [{reference: '/'}, /tag/],
    [{blobs: [{digest: 'sha256:a', spool: createUploadId()}]}, /digest/],
    [{blobs: [{digest: digestOf(REQUEST.bytes), spool: '../meta.db'}]}, /upload/],
    [{blobs: [null]}, /^\{"error":/],
  ];
  for (const [change, reported] of wrong) {
    t.regex((await post('/ingest', JSON.stringify({...options, ...change})))[1], reported);
  }
});

test('two servers in one process have a socket each', async (t) => {
  const registries = [{url: 'http://127.0.0.1:9'}];
  const one = await startBackref(t, {registries});
  const two = await startBackref(t, {registries});
  for (const {folder} of [one, two]) {
    const client = await connectCommands(folder);
    t.deepEqual(await client?.reindex(noProgress), {manifests: 0, edges: 0, removed: 0});
  }
  await one.server.close();
  t.is(await connectCommands(one.folder), undefined);
  t.truthy(await connectCommands(two.folder));
});

test('a server does not start in the folder of another one, under whatever path', async (t) => {
  const registries = [{url: 'http://127.0.0.1:9'}];
  const {folder, ask, server} = await startBackref(t, {registries});
  const other = join(await createFolder(t), 'link');
  await symlink(folder, other);
  for (const name of [folder, other]) {
    await t.throwsAsync(() => startBackref(t, {registries, folder: name}), {
      instanceOf: Occupied,
      message: /another backref is using .* storage\.path/,
    });
  }
  t.is((await ask('/v2/')).status, 200);
  await server.close();
  await t.notThrowsAsync(() => startBackref(t, {registries, folder: other}));
});

test('of several servers that start at once, one gets the folder of a dead server', async (t) => {
  const registries = [{url: 'http://127.0.0.1:9'}];
  const folder = await createFolder(t);
  await writeFile(join(folder, 'backref.sock'), '');
  const starts = Array.from({length: 4}, () => startBackref(t, {registries, folder}));
  const outcomes = await Promise.allSettled(starts);
  const refused = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []));
  t.is(refused.length, 3);
  t.true(refused.every((reason) => reason instanceof Occupied));
  t.deepEqual(await (await connectCommands(folder))?.reindex(noProgress), {
    manifests: 0,
    edges: 0,
    removed: 0,
  });
});

test('a server whose folder cannot have a socket still serves', async (t) => {
  const folder = await createFolder(t);
  // A folder of that name cannot be replaced by a socket.
  await mkdir(join(folder, 'backref.sock'));
  await writeFile(join(folder, 'backref.sock', 'x'), '');
  const {ask} = await startBackref(t, {registries: [{url: 'http://127.0.0.1:9'}], folder});
  t.is((await ask('/v2/')).status, 200);
});
