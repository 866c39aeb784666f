import test, {type ExecutionContext} from 'ava';
import {createLog, logEvents} from '../../src/observe/log.ts';
import {type Backref, type BackrefOptions, createPassingClock, startBackref} from '../support/backref.ts';
import {blobAnswer, manifestAnswer, plainManifest, randomBlob} from '../support/content.ts';
import {createScriptedUpstream, HANG} from '../support/scripted-upstream.ts';

const blob = randomBlob(3000);
const BLOB = `/v2/app/blobs/${blob.digest}`;

/** A server with the log that its operator reads. */
async function startLogged(
  t: ExecutionContext,
  options: BackrefOptions,
): Promise<Backref & {lines: string[]; ended(count: number): Promise<void>}> {
  const proxy = await startBackref(t, options);
  const lines: string[] = [];
  const write = (line: string) => void lines.push(line);
  logEvents(proxy.server.events, await createLog({level: 'info', format: 'pretty'}, {write, now: Date.now}));
  let requests = 0;
  let moved = Promise.withResolvers<void>();
  proxy.server.events.on('request.end', () => {
    requests += 1;
    moved.resolve();
    moved = Promise.withResolvers();
  });
  const ended = async (count: number) => {
    while (requests < count) await moved.promise;
  };
  return {...proxy, lines, ended};
}

test('a pull that fails is one line, with the reason that the client received', async (t) => {
  const upstream = await createScriptedUpstream(t);
  const proxy = await startLogged(t, {registries: [{url: upstream.url}]});
  await upstream.stop();
  const headers = {'User-Agent': 'containerd/v1.7.2'};
  const got = await proxy.ask(BLOB, {headers});
  t.is(got.status, 503);
  await proxy.ended(1);
  await proxy.idle();
  t.is(proxy.lines.length, 1, proxy.lines.join(''));
  t.regex(
    proxy.lines[0] ?? '',
    /WARN: GET \/v2\/app\/blobs\/sha256:\w+ 503 \d+ B \d+ ms 127\.0\.0\.1 "containerd\/v1\.7\.2": .*refuses connections.* \[[0-9a-f]{8}\]\n$/,
  );
  t.true(proxy.lines[0]?.includes(`[${String(got.headers['x-request-id']).slice(0, 8)}]`));
});

test('a pull that breaks off after its headers is one line too', async (t) => {
  // Larger than what is held back until it is verified.
  const [large, other] = [randomBlob(2 ** 21), randomBlob(2 ** 21)];
  const upstream = await createScriptedUpstream(t, [
    {
      request: `GET /v2/library/app/blobs/${large.digest}`,
      answer: {...blobAnswer(large), body: other.bytes},
    },
  ]);
  const proxy = await startLogged(t, {registries: [{url: upstream.url}]});
  await t.throwsAsync(proxy.ask(`/v2/app/blobs/${large.digest}`));
  await proxy.ended(1);
  await proxy.idle();
  // An upstream that sends other content than it names is a line of its own.
  const [mismatch, request, ...more] = proxy.lines.sort();
  t.deepEqual(more, []);
  t.regex(`${mismatch}${request}`, /ERROR: discarded the download of/);
  t.regex(
    `${mismatch}${request}`,
    /WARN: GET \/v2\/app\/blobs\/\S+ 200 .*: .*sent 2097152 bytes with the digest/,
  );
});

test('a copy that is served while its upstream fails is one line, a warning', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: 'GET /v2/library/app/manifests/1', answer: manifestAnswer(plainManifest())},
  ]);
  const proxy = await startLogged(t, {registries: [{url: upstream.url}]});
  await proxy.ask('/v2/app/manifests/1');
  await upstream.stop();
  proxy.clock.move(61_000);
  await proxy.ended(1);
  proxy.lines.length = 0;
  t.is((await proxy.ask('/v2/app/manifests/1')).status, 200);
  await proxy.ended(2);
  t.is(proxy.lines.length, 1, proxy.lines.join(''));
  t.regex(
    proxy.lines[0] ?? '',
    /WARN: GET \/v2\/app\/manifests\/1 200 .* backref;fwd=stale;\S+ .*: 127\.0\.0\.1:/,
  );
});

test('a pull that its client breaks off is logged as aborted by the client', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {
      request: `GET /v2/library/app/blobs/${blob.digest}`,
      answer: {headers: {'content-length': '3000'}, body: [blob.bytes.subarray(0, 1000), HANG]},
    },
  ]);
  const proxy = await startLogged(t, {registries: [upstream], clock: createPassingClock()});
  const message = await proxy.open(BLOB);
  message.destroy();
  await proxy.ended(1);
  t.regex(proxy.lines.join(''), /INFO: GET \/v2\/app\/blobs\/\S+ 200 aborted by its client /);
});

test('pings and scrapes that are answered are not logged', async (t) => {
  const proxy = await startLogged(t, {registries: [{}]});
  for (const path of ['/v2/', '/metrics', '/v2/app/tags/list']) await proxy.ask(path);
  await proxy.ended(3);
  t.deepEqual(
    proxy.lines.map((line) => / GET (\S+)/.exec(line)?.[1]),
    ['/v2/app/tags/list'],
  );
});

test('behind a trusted proxy the log names the client that the proxy names', async (t) => {
  const proxy = await startLogged(t, {registries: [{}], trustedProxies: ['127.0.0.0/8']});
  await proxy.ask('/v2/app/tags/list', {headers: {'X-Forwarded-For': '198.51.100.7'}});
  await proxy.ended(1);
  t.regex(proxy.lines[0] ?? '', / 198\.51\.100\.7: /);
});
