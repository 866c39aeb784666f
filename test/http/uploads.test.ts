import test from 'ava';
import {algorithmOf, digestOf} from '../../src/oci/digest.ts';
import {OciError} from '../../src/oci/errors.ts';
import {parseName} from '../../src/oci/name.ts';
import type {Route} from '../../src/registry/namespace.ts';
import type {Chunk, UploadOptions} from '../../src/registry/push/push.ts';
import {createMovableClock, type MovableClock} from '../support/backref.ts';
import {contentOf, randomBlob} from '../support/content.ts';
import {askRaw, openRaw} from '../support/raw-http.ts';
import {ask, bytesOf, ID, startPushServer, state} from './http-server.ts';
import {errorOf} from './spec-codes.ts';

const HOST = 'Host: 127.0.0.1\r\n';
const SESSION = `/v2/app/blobs/uploads/${ID}`;
const MiB = 1024 * 1024;
const blob = randomBlob(3000);

test('an upload begins with 202, its location, an empty range, its id, and the minimum chunk length', async (t) => {
  const {port} = await startPushServer(t, {begin: async () => state(0, 1024)});
  for (const path of ['/v2/app/blobs/uploads/', '/v2/app/blobs/uploads']) {
    const got = await ask(port, 'POST', path);
    t.is(got.status, 202);
    t.like(got.headers, {
      location: SESSION,
      range: '0-0',
      'docker-upload-uuid': ID,
      'oci-chunk-min-length': '1024',
      'content-length': '0',
      'content-type': undefined,
    });
    t.is(got.body.length, 0);
  }
});

test('Location keeps the client’s own naming, prefix and ns included', async (t) => {
  const {port} = await startPushServer(t, {begin: async () => state(0), finish: async () => {}});
  for (const [name, query] of [
    ['app', ''],
    ['ghcr.io/org/app', ''],
    ['GHCR.io/org/app', ''],
    ['org/app', '?ns=ghcr.io'],
    ['ghcr.io/org/app', '?ns=ghcr.io'],
  ]) {
    const got = await ask(port, 'POST', `/v2/${name}/blobs/uploads/${query}`);
    t.is(got.headers.location, `/v2/${name}/blobs/uploads/${ID}${query}`);
    const mark = query === '' ? '?' : '&';
    const put = await ask(port, 'PUT', `${got.headers.location}${mark}digest=${blob.digest}`, blob.bytes);
    t.is(put.headers.location, `/v2/${name}/blobs/${blob.digest}${query}`);
  }
});

test('the state of an upload is 204 with Location and Range, which is 0-0 for an empty upload too', async (t) => {
  let offset = 0;
  const {port} = await startPushServer(t, {state: async () => state(offset)});
  for (const [bytes, range] of [
    [0, '0-0'],
    [1, '0-0'],
    [1000, '0-999'],
  ] as const) {
    offset = bytes;
    const got = await ask(port, 'GET', SESSION);
    t.is(got.status, 204);
    t.like(got.headers, {location: SESSION, range, 'docker-upload-uuid': ID});
  }
});

const ranges: [given: string | undefined, range: Chunk['range']][] = [
  [undefined, undefined],
  ['0-2999', {start: 0, end: 2999}],
  ['5000-7999', {start: 5000, end: 7999}],
  ['bytes 0-2999/*', {start: 0, end: 2999}],
  ['bytes 5000-7999/9000', {start: 5000, end: 7999}],
];

for (const [given, range] of ranges) {
  for (const framing of ['Content-Length', 'chunked']) {
    test(`PATCH by ${framing} with Content-Range ${given} gives bytes, length and range`, async (t) => {
      const seen: {chunk: Chunk; bytes: Buffer}[] = [];
      const {port, requests} = await startPushServer(t, {
        append: async (_route, _id, chunk) => {
          seen.push({chunk, bytes: await bytesOf(chunk)});
          return state(8000);
        },
      });
      const got = await ask(port, 'PATCH', SESSION, blob.bytes, {
        ...(given === undefined ? {} : {'Content-Range': given}),
        ...(framing === 'chunked' ? {'Transfer-Encoding': 'chunked'} : {'Content-Length': 3000}),
      });
      t.is(got.status, 202);
      t.like(got.headers, {location: SESSION, range: '0-7999', 'content-length': '0'});
      const [{chunk, bytes} = {}] = seen;
      t.deepEqual(bytes, blob.bytes);
      t.deepEqual(chunk?.range, range);
      t.is(chunk?.length, framing === 'chunked' && !range ? undefined : 3000);
      t.is(requests[0]?.received, 3000);
    });
  }
}

for (const range of ['0-', '-5', '9-5', 'bytes */3000', '0-2999,4000-5000', 'a-b', '0 - 2999', '0-1e3']) {
  test(`Content-Range "${range}" is 400 BLOB_UPLOAD_INVALID`, async (t) => {
    const {port} = await startPushServer(t, {});
    const got = await ask(port, 'PATCH', SESSION, blob.bytes, {'Content-Range': range});
    t.is(got.status, 400);
    t.is(errorOf(got).code, 'BLOB_UPLOAD_INVALID');
  });
}

for (const range of ['0-2998', '0-3000']) {
  test(`a body of 3000 bytes with Content-Range ${range} is 400 SIZE_INVALID, with or without a declared length`, async (t) => {
    const append = async (_route: Route, _id: unknown, chunk: Chunk) => {
      await bytesOf(chunk);
      return state(0);
    };
    const {port} = await startPushServer(t, {append});
    for (const framing of [{'Content-Length': 3000}, {'Transfer-Encoding': 'chunked'}]) {
      const got = await ask(port, 'PATCH', SESSION, blob.bytes, {'Content-Range': range, ...framing});
      t.is(got.status, 400);
      t.is(errorOf(got).code, 'SIZE_INVALID');
    }
  });
}

for (const method of ['PATCH', 'PUT']) {
  test(`416 to a ${method} out of order names the upload's location and its received range`, async (t) => {
    const disorder = async () => {
      throw new OciError('BLOB_UPLOAD_INVALID', {status: 416, headers: {Range: '0-99'}, message: 'a gap'});
    };
    const {port} = await startPushServer(t, {append: disorder, finish: disorder});
    const path = `/v2/app/blobs/uploads/${ID}?ns=ghcr.io&digest=${blob.digest}`;
    const got = await ask(port, method, path, blob.bytes, {'Content-Range': '200-3199'});
    t.is(got.status, 416);
    t.like(got.headers, {location: `${SESSION}?ns=ghcr.io`, range: '0-99'});
    t.is(errorOf(got).message, 'a gap');
  });
}

test('PUT closes an upload: 201 with the blob and its digest', async (t) => {
  const seen: unknown[] = [];
  const {port} = await startPushServer(t, {
    finish: async (_route, id, digest, chunk) =>
      void seen.push([id, digest, chunk.length, chunk.range, await bytesOf(chunk)]),
  });
  const path = `${SESSION}?digest=${blob.digest}`;
  for (const [body, headers, seenOf] of [
    [undefined, {}, [0, undefined]],
    [Buffer.alloc(0), {'Content-Length': 0}, [0, undefined]],
    [blob.bytes, {'Content-Range': '0-2999'}, [3000, {start: 0, end: 2999}]],
  ] as const) {
    const got = await ask(port, 'PUT', path, body, headers);
    t.is(got.status, 201);
    t.like(got.headers, {
      location: `/v2/app/blobs/${blob.digest}`,
      'docker-content-digest': blob.digest,
      'content-length': '0',
    });
    t.deepEqual(seen.pop(), [ID, blob.digest, ...seenOf, body ?? Buffer.alloc(0)]);
  }
});

for (const query of ['', '?digest=', '?digest=sha256:abc', '?digest=md5:d41d8cd98f00b204e9800998ecf8427e']) {
  test(`PUT with the query "${query}" is 400 DIGEST_INVALID`, async (t) => {
    const {port} = await startPushServer(t, {});
    const got = await ask(port, 'PUT', `${SESSION}${query}`);
    t.is(got.status, 400);
    t.is(errorOf(got).code, 'DIGEST_INVALID');
  });
}

test('an id that is not one of ours is 404 BLOB_UPLOAD_UNKNOWN', async (t) => {
  const {port} = await startPushServer(t, {});
  for (const id of ['4f0a', '..%2f..', '%zz', 'a'.repeat(200), ID.toUpperCase()]) {
    for (const method of ['GET', 'PATCH', 'PUT', 'DELETE']) {
      const got = await ask(port, method, `/v2/app/blobs/uploads/${id}?digest=${blob.digest}`);
      t.is(got.status, 404, id);
      t.is(errorOf(got).code, 'BLOB_UPLOAD_UNKNOWN');
    }
  }
});

test('DELETE cancels an upload: 204', async (t) => {
  const {port} = await startPushServer(t, {cancel: async () => {}});
  t.is((await ask(port, 'DELETE', SESSION)).status, 204);
});

test('one POST with a digest uploads the whole blob', async (t) => {
  const asked: UploadOptions[] = [];
  const sha512 = contentOf(blob.bytes, 'sha512');
  const {port} = await startPushServer(t, {
    begin: async (_route, options) => {
      asked.push(options);
      return state(0);
    },
    finish: async (_route, _id, digest, chunk) =>
      void t.is(digestOf(await bytesOf(chunk), algorithmOf(digest)), digest),
  });
  for (const {digest} of [blob, sha512]) {
    const got = await ask(port, 'POST', `/v2/app/blobs/uploads/?digest=${digest}`, blob.bytes);
    t.is(got.status, 201);
    t.like(got.headers, {location: `/v2/app/blobs/${digest}`, 'docker-content-digest': digest});
  }
  t.deepEqual(
    asked.map(({algorithm}) => algorithm),
    ['sha256', 'sha512'],
  );
});

test('an upload that one POST began and could not finish is cancelled', async (t) => {
  const cancelled: string[] = [];
  const {port} = await startPushServer(t, {
    begin: async () => state(0),
    finish: async () => {
      throw new OciError('DIGEST_INVALID');
    },
    cancel: async (_route, id) => void cancelled.push(id),
  });
  const got = await ask(port, 'POST', `/v2/app/blobs/uploads/?digest=${blob.digest}`, blob.bytes);
  t.is(errorOf(got).code, 'DIGEST_INVALID');
  t.deepEqual(cancelled, [ID]);
});

test('digest-algorithm is passed on, and one that is not supported is 400 DIGEST_INVALID', async (t) => {
  const asked: UploadOptions[] = [];
  const {port} = await startPushServer(t, {
    begin: async (_route, options) => {
      asked.push(options);
      return state(0);
    },
  });
  t.is((await ask(port, 'POST', '/v2/app/blobs/uploads/?digest-algorithm=sha512')).status, 202);
  t.deepEqual(asked, [{algorithm: 'sha512', mount: undefined, holder: '127.0.0.1'}]);
  for (const name of ['md5', 'SHA512', '', 'constructor']) {
    const got = await ask(port, 'POST', `/v2/app/blobs/uploads/?digest-algorithm=${name}`);
    t.is(got.status, 400);
    t.is(errorOf(got).code, 'DIGEST_INVALID');
  }
});

test('a mounted blob is 201 with its location and its digest', async (t) => {
  const {port} = await startPushServer(t, {begin: async () => 'mounted'});
  const got = await ask(port, 'POST', `/v2/app/blobs/uploads/?mount=${blob.digest}&from=other`);
  t.is(got.status, 201);
  t.like(got.headers, {location: `/v2/app/blobs/${blob.digest}`, 'docker-content-digest': blob.digest});
});

const sources: [what: string, path: string, query: string, from: string | undefined | 'none'][] = [
  ['a repository', 'app', 'from=org/other', 'org/other'],
  ['a repository with its prefix', 'ghcr.io/app', 'from=ghcr.io/org/other', 'org/other'],
  ['a repository of the registry that ns names', 'app', 'ns=ghcr.io&from=org/other', 'org/other'],
  ['no repository, so any of them', 'app', '', undefined],
  ['a malformed name', 'app', 'from=..%2fother', 'none'],
  ['an empty name', 'app', 'from=', 'none'],
  ['a repository of another registry', 'app', 'from=ghcr.io/org/other', 'none'],
  ['a repository of the default registry, from another one', 'ghcr.io/app', 'from=org/other', 'none'],
];

for (const [what, name, query, from] of sources) {
  test(`a mount from ${what}${from === 'none' ? ' is an upload' : ''}`, async (t) => {
    const asked: UploadOptions[] = [];
    const {port} = await startPushServer(t, {
      begin: async (_route, options) => {
        asked.push(options);
        return state(0);
      },
    });
    const got = await ask(port, 'POST', `/v2/${name}/blobs/uploads/?mount=${blob.digest}&${query}`);
    t.is(got.status, 202);
    const mount = asked[0]?.mount;
    if (from === 'none') return t.is(mount, undefined);
    t.is(mount?.digest, blob.digest);
    t.is(mount?.from?.repository.name, from === undefined ? undefined : parseName(from));
  });
}

test('a mount of a malformed digest is 400', async (t) => {
  const {port} = await startPushServer(t, {});
  t.is((await ask(port, 'POST', '/v2/app/blobs/uploads/?mount=sha256:1&from=other')).status, 400);
});

test('other methods of an upload are 405 with those that are supported', async (t) => {
  const {port} = await startPushServer(t, {});
  t.is((await ask(port, 'POST', SESSION)).headers.allow, 'GET, PATCH, PUT, DELETE');
  t.is((await ask(port, 'PUT', '/v2/app/blobs/uploads/')).headers.allow, 'POST');
  t.is((await ask(port, 'PATCH', '/v2/app/manifests/1')).headers.allow, 'GET, HEAD, PUT, DELETE');
  t.is((await ask(port, 'PUT', `/v2/app/blobs/${blob.digest}`)).headers.allow, 'GET, HEAD, DELETE');
  t.is((await ask(port, 'PUT', '/v2/app/tags/list')).headers.allow, 'GET, HEAD');
});

/** A push that reads what is appended, and records how that ended. */
function appending() {
  const ends: (number | OciError)[] = [];
  let began = () => {};
  const reading = new Promise<void>((resolve) => {
    began = resolve;
  });
  const append = async (_route: Route, _id: unknown, {bytes}: Chunk) => {
    let count = 0;
    try {
      for await (const chunk of bytes) {
        count += chunk.length;
        began();
      }
      ends.push(count);
    } catch (error) {
      ends.push(error as OciError);
      throw error;
    }
    return state(count);
  };
  return {append, ends, reading};
}

/** A clock whose timeouts of 60 s end when the test triggers them. */
function createSilentClock(): MovableClock & {silence(): void} {
  const clock = createMovableClock();
  let waits: (() => void)[] = [];
  return {
    ...clock,
    after(ms, call) {
      if (ms !== 60_000) return clock.after(ms, call);
      waits.push(call);
      return () => {
        waits = waits.filter((other) => other !== call);
      };
    },
    silence() {
      clock.move(60_000);
      for (const wake of waits.splice(0)) wake();
      waits = [];
    },
  };
}

test('a client that sends nothing for 60 s is answered 408 and disconnected', async (t) => {
  const clock = createSilentClock();
  const {append, ends, reading} = appending();
  const {port, faults} = await startPushServer(t, {append}, clock);
  const {send, answer, socket} = await openRaw(t, port);
  send(`PATCH ${SESSION} HTTP/1.1\r\n${HOST}Content-Length: 3000\r\n\r\nthe first bytes`);
  await reading;
  // The bytes were read, and the next ones are awaited.
  await new Promise(setImmediate);
  clock.silence();
  const got = await answer('PATCH');
  t.is(got?.status, 408);
  t.is(got?.headers['connection'], 'close');
  if (got) t.is(errorOf(got).code, 'BLOB_UPLOAD_INVALID');
  t.is((ends[0] as OciError).status, 408);
  t.true(socket.readableEnded || socket.destroyed);
  t.deepEqual(faults, []);
});

test('a client that leaves in the middle of a body is not a fault', async (t) => {
  const {append, ends, reading} = appending();
  const {port, faults, requests} = await startPushServer(t, {append});
  const {send, socket} = await openRaw(t, port);
  send(`PATCH ${SESSION} HTTP/1.1\r\n${HOST}Content-Length: 3000\r\n\r\nthe first bytes`);
  await reading;
  socket.resetAndDestroy();
  while (ends.length === 0 || requests.length === 0) await new Promise(setImmediate);
  t.is((ends[0] as OciError).code, 'BLOB_UPLOAD_INVALID');
  t.is(requests[0]?.received, 15);
  t.deepEqual(faults, []);
});

test('a client that ends its side in the middle of a body is answered 400', async (t) => {
  const {append, ends, reading} = appending();
  const {port, faults} = await startPushServer(t, {append});
  const {send, answer, socket} = await openRaw(t, port);
  send(`PATCH ${SESSION} HTTP/1.1\r\n${HOST}Content-Length: 3000\r\n\r\nthe first bytes`);
  await reading;
  socket.end();
  t.is((await answer('PATCH'))?.status, 400);
  while (ends.length === 0) await new Promise(setImmediate);
  t.deepEqual(faults, []);
});

test('a chunk whose framing is broken is 400', async (t) => {
  const {append, ends, reading} = appending();
  const {port, faults} = await startPushServer(t, {append});
  const {send, answer} = await openRaw(t, port);
  send(`PATCH ${SESSION} HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n`);
  await reading;
  send('this is not a length\r\n');
  t.is((await answer('PATCH'))?.status, 400);
  while (ends.length === 0) await new Promise(setImmediate);
  t.deepEqual(faults, []);
});

test('a refusal reaches a client that is still sending, which then stops', async (t) => {
  const {port, requests} = await startPushServer(t, {});
  const {send, answer, socket} = await openRaw(t, port);
  send(`PATCH /v2/app/blobs/uploads/unknown HTTP/1.1\r\n${HOST}Content-Length: ${64 * MiB}\r\n\r\n`);
  const piece = Buffer.alloc(MiB);
  for (let count = 0; count < 4; count++) send(piece);
  const got = await answer('PATCH');
  t.is(got?.status, 404);
  t.is(got?.headers['connection'], 'close');
  socket.destroy();
  while (requests.length === 0) await new Promise(setImmediate);
  t.is(requests[0]?.received, 0);
});

test('a client that keeps sending after its answer is cut off', async (t) => {
  const {port} = await startPushServer(t, {});
  const {socket, answer} = await openRaw(t, port);
  socket.write(`PATCH /v2/app/blobs/uploads/unknown HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n`);
  const closed = new Promise((resolve) => void socket.once('close', resolve));
  const piece = Buffer.concat([Buffer.from('100000\r\n'), Buffer.alloc(MiB), Buffer.from('\r\n')]);
  const pump = () => {
    while (!socket.destroyed && socket.write(piece));
  };
  socket.on('drain', pump);
  pump();
  t.is((await answer('PATCH'))?.status, 404);
  await closed;
  t.true(socket.bytesWritten < 64 * MiB, `${socket.bytesWritten}`);
});

test('a small body of a refused request is skipped, and the connection serves the next request', async (t) => {
  const {port} = await startPushServer(t, {state: async () => state(0)});
  const {send, answer} = await openRaw(t, port);
  send(`PATCH /v2/app/blobs/uploads/unknown HTTP/1.1\r\n${HOST}Content-Length: 3000\r\n\r\n`);
  send(blob.bytes);
  const got = await answer('PATCH');
  t.is(got?.status, 404);
  t.is(got?.headers['connection'], 'keep-alive');
  send(`GET ${SESSION} HTTP/1.1\r\n${HOST}\r\n`);
  t.is((await answer())?.status, 204);
});

const expecting = (path: string) =>
  `PATCH ${path} HTTP/1.1\r\n${HOST}Expect: 100-continue\r\nContent-Length: 3000\r\n\r\n`;

test('a client that sends Expect: 100-continue is told to continue', async (t) => {
  const {append, ends} = appending();
  const {port} = await startPushServer(t, {append});
  const {send, answer, socket} = await openRaw(t, port);
  const first = new Promise<Buffer>((resolve) => void socket.once('data', resolve));
  send(expecting(SESSION));
  t.is((await first).toString(), 'HTTP/1.1 100 Continue\r\n\r\n');
  send(blob.bytes);
  t.is((await answer('PATCH'))?.status, 202);
  t.deepEqual(ends, [3000]);
});

test('a client that sends Expect: 100-continue does not send the body of a refused request', async (t) => {
  const {port} = await startPushServer(t, {});
  const {socket, send} = await openRaw(t, port);
  send(expecting('/v2/app/blobs/uploads/unknown'));
  const text = Buffer.concat(await socket.toArray()).toString();
  t.regex(text, /^HTTP\/1\.1 404 /);
  t.regex(text, /^Connection: close\r$/m);
});

test('an answer to a HEAD of an upload has no body', async (t) => {
  const {port} = await startPushServer(t, {});
  t.is((await askRaw(t, port, `HEAD ${SESSION} HTTP/1.1\r\n${HOST}\r\n`, 'HEAD'))?.status, 405);
});
