import {randomBytes} from 'node:crypto';
import {once} from 'node:events';
import {setTimeout as delay} from 'node:timers/promises';
import test from 'ava';
import {RemoteSocket, type RemoteWorker} from '../../src/workers/remote-socket.ts';

type Order = Parameters<RemoteWorker['command']>[0];

/** A connection whose worker does what the test says, and what it was told. */
function setUp() {
  const orders: Order[] = [];
  const socket = new RemoteSocket('192.0.2.1', {
    command: (order) => void orders.push(order),
    keep() {},
  });
  socket.on('error', () => {});
  const told = () => orders.map(({type}) => type);
  return {socket, orders, told};
}

const own = (text: string) => new Uint8Array(Buffer.from(text));

test('a write has ended once the worker says so, and only then counts as sent', async (t) => {
  const {socket, orders, told} = setUp();
  let ended = 0;
  socket.write('ab', () => ended++);
  socket.write('cde', () => ended++);
  t.deepEqual(told(), ['write']);
  t.is(socket.bytesWritten - socket.writableLength, 0);
  socket.written();
  await new Promise(setImmediate);
  t.is(ended, 1);
  t.is(socket.bytesWritten - socket.writableLength, 2);
  t.deepEqual(told(), ['write', 'write']);
  socket.written();
  await new Promise(setImmediate);
  t.deepEqual([ended, socket.bytesWritten, socket.writableLength], [2, 5, 0]);
  const texts = orders.map((order) => (order.type === 'write' ? Buffer.from(order.bytes).toString() : ''));
  t.deepEqual(texts, ['ab', 'cde']);
});

test('a large write reaches the worker in parts, one at a time', async (t) => {
  const {socket, orders, told} = setUp();
  const bytes = randomBytes(600_000);
  let isEnded = false;
  socket.cork();
  for (const chunk of [bytes.subarray(0, 10), bytes.subarray(10, 262_144), bytes.subarray(262_144)])
    socket.write(chunk, () => {
      isEnded = true;
    });
  socket.uncork();
  for (const count of [1, 2, 3]) {
    t.is(told().length, count);
    t.false(isEnded);
    t.is(socket.bytesWritten - socket.writableLength, 0);
    socket.written();
    await new Promise(setImmediate);
  }
  t.true(isEnded);
  t.is(socket.bytesWritten - socket.writableLength, bytes.length);
  const parts = orders.map((order) => (order.type === 'write' ? order.bytes : own('')));
  t.true(parts.every(({length}) => length > 0 && length <= 256 * 1024));
  t.true(Buffer.concat(parts).equals(bytes));
});

test('its end follows what was written before', async (t) => {
  const {socket, told} = setUp();
  socket.write('ab');
  socket.destroySoon();
  t.deepEqual(told(), ['write']);
  socket.written();
  await new Promise(setImmediate);
  t.deepEqual(told(), ['write', 'end', 'destroy']);
  t.false(socket.closed);
  // Its place is given back once the worker has closed it.
  socket.closedBy(undefined);
  await once(socket, 'close');
});

test('what has arrived is reported as taken once somebody reads it', async (t) => {
  const {socket, orders} = setUp();
  socket.received(own('a'.repeat(100_000)));
  t.deepEqual(orders, []);
  const received: string[] = [];
  socket.on('data', (bytes: Buffer) => void received.push(bytes.toString()));
  await new Promise(setImmediate);
  socket.received(own('b'));
  await new Promise(setImmediate);
  t.deepEqual(
    orders.map((order) => (order.type === 'taken' ? order.count : 0)),
    [100_000, 1],
  );
  t.is(received.join('').length, 100_001);
});

test('the end of the client’s side leaves this one open, and its error is that of the connection', async (t) => {
  const {socket, told} = setUp();
  socket.resume();
  socket.ended();
  await once(socket, 'end');
  t.true(socket.writable);
  const failed = once(socket, 'error');
  socket.closedBy(Object.assign(new Error('reset'), {code: 'ECONNRESET'}));
  const [{code}] = await failed;
  t.is(code, 'ECONNRESET');
  // A connection that has ended takes nothing more.
  socket.received(own('a'));
  socket.ended();
  t.deepEqual(told(), []);
});

test('it is idle here until its worker has taken it back', async (t) => {
  const {socket, told} = setUp();
  let expired = 0;
  socket.on('timeout', () => expired++);
  socket.setTimeout(5);
  socket.rest();
  t.deepEqual(told(), ['rest']);
  while (expired === 0) await delay(1);
  socket.setTimeout(1);
  socket.opened();
  await delay(20);
  t.is(expired, 1);
});
