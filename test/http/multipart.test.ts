import test from 'ava';
import fc from 'fast-check';
import {multipart} from '../../src/http/ranges.ts';
import type {ByteRange} from '../../src/oci/range.ts';

const content = Buffer.from(Array.from({length: 500}, (_, index) => index % 256));
async function* only(bytes: Uint8Array) {
  yield bytes;
}
const open = async ({start, end}: ByteRange) => only(content.subarray(start, end + 1));
const made = (spans: ByteRange[]) => multipart(spans, content.length, 'application/octet-stream', open);
const read = async (body: AsyncIterable<Uint8Array>) => Buffer.concat(await Array.fromAsync(body));

test('every part has its own type and range, and the body ends with the closing boundary', async (t) => {
  const {contentType, body} = made([
    {start: 0, end: 1},
    {start: 97, end: 99},
  ]);
  const boundary = /^multipart\/byteranges; boundary=(\S+)$/.exec(contentType)?.[1];
  t.is(
    (await read(body)).toString('latin1'),
    [
      `\r\n--${boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 0-1/500\r\n\r\n\x00\x01`,
      `\r\n--${boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 97-99/500\r\n\r\nabc`,
      `\r\n--${boundary}--\r\n`,
    ].join(''),
  );
});

test('two bodies never share a boundary', (t) => {
  t.not(made([]).contentType, made([]).contentType);
});

test('parts are opened one by one, each when it is reached', async (t) => {
  const opened: number[] = [];
  const {body} = multipart(
    [
      {start: 0, end: 0},
      {start: 2, end: 2},
    ],
    9,
    'text/plain',
    async (span) => {
      opened.push(span.start);
      return open(span);
    },
  );
  const chunks = body[Symbol.asyncIterator]();
  t.deepEqual(opened, []);
  await chunks.next();
  t.deepEqual(opened, []);
  await chunks.next();
  t.deepEqual(opened, [0]);
  await chunks.return?.();
  t.deepEqual(opened, [0]);
});

const span = fc
  .tuple(fc.nat(content.length - 1), fc.nat(content.length - 1))
  .map(([a, b]) => ({start: Math.min(a, b), end: Math.max(a, b)}));

test('the declared length is the length sent, whatever the parts', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(span, {maxLength: 64}), async (spans) => {
      const {length, body} = made(spans);
      return (await read(body)).length === length;
    }),
  );
  t.pass();
});
