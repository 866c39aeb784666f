import test, {type ExecutionContext} from 'ava';
import {ANONYMOUS} from '../../src/caller.ts';
import type {Answer, Handler} from '../../src/http/answer.ts';
import {deleteBlob, getBlob, headBlob} from '../../src/http/blobs.ts';
import {listCatalog} from '../../src/http/catalog.ts';
import {answerAt} from '../../src/http/door.ts';
import {errorAnswer} from '../../src/http/errors.ts';
import {ping} from '../../src/http/health.ts';
import {getManifest, headManifest, putManifest} from '../../src/http/manifests.ts';
import {listReferrers} from '../../src/http/referrers.ts';
import type {Request} from '../../src/http/request.ts';
import {endpointsOf, type Verbs} from '../../src/http/routes.ts';
import {listTags} from '../../src/http/tags.ts';
import {appendUpload, beginUpload, getUpload} from '../../src/http/uploads.ts';
import {digestOf} from '../../src/oci/digest.ts';
import {OciError} from '../../src/oci/errors.ts';
import {parseTag} from '../../src/oci/name.ts';
import type {ByteRange} from '../../src/oci/range.ts';
import type {Manifests} from '../../src/registry/manifests/manifests.ts';
import {routeOf} from '../../src/registry/namespace.ts';
import type {Push} from '../../src/registry/push/push.ts';
import {ask, bytesOf, entranceOf, ID, OPEN_DOOR, REGISTRIES, startHttpServer, state} from './http-server.ts';

const INDEX = 'application/vnd.oci.image.index.v1+json';
const manifest = Buffer.from('{"schemaVersion":2}');
const content = Buffer.from(Array.from({length: 300_000}, (_, index) => index % 251));
const digest = digestOf(content);
const found = {
  digest: digestOf(manifest),
  mediaType: INDEX,
  size: manifest.length,
  report: {how: 'stale', ttl: -5, age: 65, warning: 'the upstream is down'} as const,
};

async function* chunksOf({start, end}: ByteRange) {
  for (let at = start; at <= end; at += 65_536) yield content.subarray(at, Math.min(at + 65_536, end + 1));
}

const manifests: Manifests = {
  get: async (_route, reference) => {
    if (reference === 'absent') throw new OciError('MANIFEST_UNKNOWN', {detail: {tag: reference}});
    return {...found, bytes: manifest};
  },
  head: async () => found,
};

const push: Partial<Push> = {
  begin: async () => state(0, 5),
  state: async () => state(3),
  append: async (_route, _id, chunk) => {
    const {length} = await bytesOf(chunk);
    if (chunk.range?.start !== 3) throw new OciError('BLOB_UPLOAD_INVALID', {status: 416});
    return state(3 + length);
  },
  putManifest: async (_route, _reference, {bytes, tags}) => ({
    digest: digestOf(bytes),
    subject: digest,
    tags,
  }),
  deleteBlob: async () => {},
};

/** One manifest, one blob, short lists, and an upload of 3 bytes. */
const verbs = {
  manifests,
  push,
  blobs: {
    get: async () => ({
      digest,
      size: content.length,
      report: {how: 'hit'},
      bytes: undefined,
      promised: undefined,
      stored: true,
      open: async (range: ByteRange = {start: 0, end: content.length - 1}) => chunksOf(range),
    }),
    head: async () => ({digest, size: undefined, report: {how: 'uri-miss'}}),
  },
  tagLists: {list: async () => ({entries: ['a', 'b'], next: 'b', report: {how: 'hit', ttl: 9}})},
  catalog: {ofOne: async () => ({entries: ['app'], next: undefined})},
  referrers: {
    list: async () => ({
      body: Buffer.from('{"manifests":[]}'),
      next: 7,
      report: {how: 'uri-miss', stored: true},
    }),
  },
} as unknown as Verbs;

interface HandlerCall {
  method?: string;
  /** Below `/v2/`. */
  path: string;
  params?: Record<string, string>;
  query?: Record<string, string | string[]>;
  headers?: Record<string, string>;
  body?: Buffer;
}

/** The value that a handler reads, without a connection. */
const requestOf = ({
  method = 'GET',
  path,
  params = {},
  query = {},
  headers = {},
  body,
}: HandlerCall): Request => ({
  method,
  path: `/v2/${path}`,
  query,
  headers,
  params: {name: 'app', ...params},
  body: {
    maxForm: 0,
    length: body?.length ?? 0,
    read: async function* () {
      if (body) yield body;
    },
  },
  entrance: entranceOf({}),
  origin: {client: '127.0.0.1', scheme: 'http', host: 'localhost'},
  registries: REGISTRIES,
  closed: () => new AbortController().signal,
});

const ROUTE = routeOf(REGISTRIES, {name: 'app', ns: undefined, host: undefined});

/** Runs a handler as the door would, an error included. */
async function direct<Place>(
  handler: Handler<Place>,
  request: Request,
  place: Place,
  id: string,
): Promise<Answer> {
  try {
    return await handler(request, place, ANONYMOUS);
  } catch (error) {
    return errorAnswer(error, id);
  }
}

const bytesIn = async ({body}: Answer): Promise<Buffer> =>
  Buffer.concat(
    body === undefined
      ? []
      : Buffer.isBuffer(body)
        ? [body]
        : await Array.fromAsync(body, (chunk) => Buffer.from(chunk)),
  );

/** What node and send.ts add to every answer. */
const COMMON = new Set(['x-request-id', 'date', 'connection', 'keep-alive', 'content-length']);

/** Calls a handler with a plain value, sends the same request through Koa, and compares the two answers. */
async function compare<Place>(
  t: ExecutionContext,
  handler: Handler<Place>,
  place: Place,
  asked: HandlerCall,
): Promise<Answer> {
  const {port, faults} = await startHttpServer(t, {verbs});
  const {method = 'GET', path, query = {}, headers, body} = asked;
  const parameters = Object.entries(query).flatMap(([name, values]) =>
    [values].flat().map((value): [string, string] => [name, value]),
  );
  const target = `/v2/${path}?${new URLSearchParams(parameters)}`;
  const sent = await ask(port, method, target, body, headers);
  const answer = await direct(handler, requestOf(asked), place, String(sent.headers['x-request-id']));

  t.is(sent.status, answer.status);
  const wanted = Object.entries(answer.headers)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]): [string, string] => [name.toLowerCase(), [value].flat().join(', ')]);
  const own = new Set(wanted.map(([name]) => name));
  const given = Object.entries(sent.headers).filter(([name]) => own.has(name) || !COMMON.has(name));
  t.deepEqual(Object.fromEntries(given), Object.fromEntries(wanted));
  const bytes = await bytesIn(answer);
  t.true(sent.body.equals(method === 'HEAD' ? Buffer.alloc(0) : bytes));
  if (method !== 'HEAD' && sent.headers['content-length'] !== undefined)
    t.is(Number(sent.headers['content-length']), bytes.length);
  t.deepEqual(faults, []);
  return answer;
}

const reference = {reference: 'latest'};
const manifestPath = 'app/manifests/latest';
const blobPath = `app/blobs/${digest}`;
const uploadPath = `app/blobs/uploads/${ID}`;

test('GET of a manifest: its bytes, its digest and how the cache produced it', async (t) => {
  const answer = await compare(t, getManifest(verbs.manifests), ROUTE, {
    path: manifestPath,
    params: reference,
  });
  t.deepEqual(answer, {
    status: 200,
    headers: {
      'Content-Type': INDEX,
      'Docker-Content-Digest': found.digest,
      ETag: `"${found.digest}"`,
      'Cache-Status': 'backref;fwd=stale;ttl=-5',
      Age: '65',
      Warning: '299 - "the upstream is down"',
    },
    body: manifest,
    repeat: undefined,
    report: found.report,
  });
});

test('GET of a manifest that the client has: 304 without a type or a length', async (t) => {
  const headers = {'if-none-match': `"${found.digest}"`};
  const asked = {path: manifestPath, params: reference, headers};
  const answer = await compare(t, getManifest(verbs.manifests), ROUTE, asked);
  t.is(answer.status, 304);
  t.is(answer.headers['Content-Type'], undefined);
});

test('HEAD of a manifest: the length of what GET would send', async (t) => {
  const asked = {method: 'HEAD', path: manifestPath, params: reference};
  const answer = await compare(t, headManifest(verbs.manifests), ROUTE, asked);
  t.is(answer.headers['Content-Length'], String(manifest.length));
  t.is(answer.body, undefined);
});

test('an error: its status, code and detail', async (t) => {
  const asked = {path: 'app/manifests/absent', params: {reference: 'absent'}};
  const answer = await compare(t, getManifest(verbs.manifests), ROUTE, asked);
  t.is(answer.status, 404);
  t.is(answer.reason, 'manifest unknown to registry');
});

test('GET of a blob: all of its bytes, as a stream', async (t) => {
  const answer = await compare(t, getBlob(verbs.blobs), ROUTE, {path: blobPath, params: {digest}});
  t.is(answer.status, 200);
  t.is(answer.headers['Content-Length'], String(content.length));
});

test('GET of a blob’s range: 206 with the part', async (t) => {
  const headers = {range: 'bytes=1000-200999'};
  const asked = {path: blobPath, params: {digest}, headers};
  const answer = await compare(t, getBlob(verbs.blobs), ROUTE, asked);
  t.is(answer.status, 206);
  t.is(answer.headers['Content-Range'], 'bytes 1000-200999/300000');
});

test('GET of a range outside a blob: 416 with the size', async (t) => {
  const asked = {path: blobPath, params: {digest}, headers: {range: 'bytes=300000-'}};
  const answer = await compare(t, getBlob(verbs.blobs), ROUTE, asked);
  t.is(answer.status, 416);
});

test('HEAD of a blob of unknown length has no Content-Length', async (t) => {
  const asked = {method: 'HEAD', path: blobPath, params: {digest}};
  const answer = await compare(t, headBlob(verbs.blobs), ROUTE, asked);
  t.is(answer.status, 200);
  t.is(answer.headers['Content-Length'], undefined);
});

test('referrers: the index, the filter that was applied, and a link to the next page', async (t) => {
  const query = {artifactType: ['b', 'a']};
  const asked = {path: `app/referrers/${digest}`, params: {digest}, query};
  const answer = await compare(t, listReferrers(verbs.referrers), ROUTE, asked);
  t.is(answer.headers['OCI-Filters-Applied'], 'artifactType');
  t.is(
    answer.headers['Link'],
    `</v2/app/referrers/${digest}?artifactType=a&artifactType=b&last=7>; rel="next"`,
  );
});

test('tags: the list in the client’s own naming', async (t) => {
  const asked = {path: 'app/tags/list', query: {n: '2'}};
  const answer = await compare(t, listTags(verbs.tagLists), ROUTE, asked);
  t.is(answer.headers['Link'], '</v2/app/tags/list?n=2&last=b>; rel="next"');
  t.is(String(await bytesIn(answer)), '{"name":"app","tags":["a","b"]}');
});

test('a malformed query is an error of the handler', async (t) => {
  const answer = await compare(t, listTags(verbs.tagLists), ROUTE, {path: 'app/tags/list', query: {n: 'x'}});
  t.is(answer.status, 400);
});

test('the catalog of the registry that the door found', async (t) => {
  const asked = {path: '_catalog', headers: {host: 'ghcr.io'}};
  const answer = await compare(t, listCatalog(verbs.catalog), REGISTRIES.named('ghcr.io'), asked);
  t.is(String(await bytesIn(answer)), '{"repositories":["app"]}');
});

test('PUT of a manifest: where it is, its subject and its tags', async (t) => {
  const asked = {
    method: 'PUT',
    path: manifestPath,
    params: reference,
    query: {tag: ['a', 'b']},
    body: manifest,
  };
  const answer = await compare(t, putManifest(verbs.push), ROUTE, asked);
  t.deepEqual(answer.headers['OCI-Tag'], [parseTag('a'), parseTag('b')]);
});

test('an upload: its start and its state', async (t) => {
  const begin = {method: 'POST', path: 'app/blobs/uploads/'};
  const begun = await compare(t, beginUpload(verbs.push), ROUTE, begin);
  t.is(begun.headers['Location'], `/v2/app/blobs/uploads/${ID}`);
  t.is(begun.headers['OCI-Chunk-Min-Length'], '5');
  const asked = {path: uploadPath, params: {session: ID}};
  t.is((await compare(t, getUpload(verbs.push), ROUTE, asked)).status, 204);
});

test('a chunk is read from the request’s body, and a chunk out of order is refused with where to continue', async (t) => {
  const asked = {method: 'PATCH', path: uploadPath, params: {session: ID}, body: Buffer.from('abc')};
  const headers = {'content-range': '3-5'};
  const appended = await compare(t, appendUpload(verbs.push), ROUTE, {...asked, headers});
  t.is(appended.headers['Range'], '0-5');
  const refused = await compare(t, appendUpload(verbs.push), ROUTE, asked);
  t.is(refused.status, 416);
  t.is(refused.headers['Location'], `/v2/app/blobs/uploads/${ID}`);
});

test('DELETE of a blob: 202 with nothing', async (t) => {
  const asked = {method: 'DELETE', path: blobPath, params: {digest}};
  t.deepEqual(await compare(t, deleteBlob(verbs.push), ROUTE, asked), {status: 202, headers: {}});
});

test('the ping', async (t) => {
  t.is((await compare(t, ping, undefined, {path: ''})).status, 200);
});

test('a request is answered without Koa: the door routes it, authorizes it and calls its handler', async (t) => {
  const endpoint = endpointsOf(verbs).find(({path}) => path === '/v2/*name/tags/list');
  if (!endpoint) return t.fail();
  const actions: string[] = [];
  const allowed = {verdict: 'allowed'} as const;
  const access = {
    ...OPEN_DOOR.access,
    registry: () => allowed,
    repository: (_route: unknown, _caller: unknown, action: string) => {
      actions.push(action);
      return allowed;
    },
  };
  const admitted: string[] = [];
  const exchange: Parameters<typeof answerAt>[3] = {
    kind: 'other',
    caller: 'nobody',
    action: undefined,
    registry: undefined,
    repository: undefined,
    namespace: undefined,
    identity: undefined,
    isRepeatable: false,
    admit: ({key}) => void admitted.push(`${key} for ${exchange.kind}`),
  };
  const asked = requestOf({path: 'app/tags/list', query: {ns: 'ghcr.io'}});
  const answer = await answerAt(endpoint, asked, ANONYMOUS, exchange, {...OPEN_DOOR, access});
  t.is(answer.status, 200);
  t.like(exchange, {
    kind: 'tags',
    caller: 'anonymous',
    action: 'pull',
    registry: 'ghcr.io',
    repository: 'app',
    namespace: 'ghcr.io',
  });
  t.deepEqual(actions, ['pull']);
  t.deepEqual(admitted, ['anonymous for tags']);
});
