import {once} from 'node:events';
import {connect, createServer, type Socket} from 'node:net';
import test, {type ExecutionContext} from 'ava';
import {createEvents} from '../../src/events.ts';
import {createConnections} from '../../src/http/connections.ts';
import {createManualClock} from '../support/clock.ts';

const MIB = 1024 * 1024;
const SEND_TIMEOUT_MS = 60_000;
/** One check of progress. */
const CHECK_MS = SEND_TIMEOUT_MS / 4;
/** Far more than both sides' sockets buffer. */
const LENGTH = 64 * MIB;

/** A client that reads only when it is told to, and the server's end of its connection. */
async function connected(t: ExecutionContext): Promise<{client: Socket; socket: Socket}> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  const client = connect(address.port, '127.0.0.1').pause();
  const [socket] = (await once(server, 'connection')) as [Socket];
  t.teardown(() => {
    client.destroy();
    socket.destroy();
    server.close();
  });
  return {client, socket};
}

/** Reads at least so many bytes. */
async function take(client: Socket, bytes: number): Promise<void> {
  const until = client.bytesRead + bytes;
  client.resume();
  while (client.bytesRead < until) await new Promise(setImmediate);
  client.pause();
}

test('a client that takes some of one large write between two checks is left alone, and disconnected once it takes none', async (t) => {
  const clock = createManualClock();
  const events = createEvents();
  const {client, socket} = await connected(t);
  createConnections({sendTimeout: SEND_TIMEOUT_MS, clock, events}).add(socket);
  let stalled = 0;
  events.on('client.stalled', () => (stalled += 1));
  socket.write(Buffer.alloc(LENGTH));
  for (let count = 0; count < 10; count++) {
    // More than both sides' sockets buffer may be needed before the system takes more of the write.
    const left = socket.writableLength;
    await take(client, 4 * MIB);
    t.is(socket.writableLength, left, 'it is still the same write');
    await clock.advance(CHECK_MS);
    t.is(stalled, 0);
  }
  await clock.advance(SEND_TIMEOUT_MS + CHECK_MS);
  t.is(stalled, 1);
  t.true(socket.destroyed);
});

test('what waits for a connection that is being destroyed is not waited for beyond its end', async (t) => {
  const {socket} = await connected(t);
  const [clock, events] = [createManualClock(), createEvents()];
  const connections = createConnections({sendTimeout: SEND_TIMEOUT_MS, clock, events});
  connections.add(socket);
  socket.write(Buffer.alloc(LENGTH));
  socket.destroy();
  t.true(socket.writableLength > 0);
  await connections.sent();
  t.true(socket.closed);
});
