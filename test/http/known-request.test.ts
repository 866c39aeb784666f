import {createServer, request} from 'node:http';
import type {AddressInfo} from 'node:net';
import test, {type ExecutionContext} from 'ava';
import {createRequestReader} from '../../src/http/known-request.ts';

const FIELDS = 'Host: a\r\nAuthorization: Bearer secret\r\nUser-Agent: one\r\n';
const headOf = (path: string, fields = FIELDS): string => `GET ${path} HTTP/1.1\r\n${fields}\r\n`;
const bytesOf = (head: string): Buffer => Buffer.from(head, 'latin1');

test('a request has the same key whether node reads it or not', async (t) => {
  const reader = createRequestReader(() => 100);
  const key = await new Promise<string | undefined>((resolve) => {
    const server = createServer((message, response) => {
      resolve(reader.known(message, 0)?.key);
      response.end();
    }).listen(0, '127.0.0.1', () => {
      const {port} = server.address() as AddressInfo;
      const headers = {
        host: 'a',
        'User-Agent': 'two',
        authorization: 'Bearer secret',
        connection: 'keep-alive',
      };
      request({host: '127.0.0.1', port, path: '/v2/?n=1', headers, agent: false}).end();
    });
    t.teardown(() => server.close());
  });
  t.not(key, undefined);
  t.is(reader.connection(0).read(bytesOf(headOf('/v2/?n=1')))?.key, key);
});

test('requests with other credentials or at other listeners have other keys', (t) => {
  const {connection} = createRequestReader(() => 100);
  const keys = [
    connection(0).read(bytesOf(headOf('/'))),
    connection(1).read(bytesOf(headOf('/'))),
    connection(0).read(bytesOf(headOf('/', 'Host: a\r\n'))),
    connection(0).read(bytesOf(headOf('/', FIELDS.replace('secret', 'other')))),
  ].map((known) => known?.key);
  t.false(keys.includes(undefined));
  t.is(new Set(keys).size, 4);
});

test('a key does not show the credential, and differs from one server to the next', (t) => {
  const [one, other] = [0, 1].map(
    () =>
      createRequestReader(() => 100)
        .connection(0)
        .read(bytesOf(headOf('/')))?.key,
  );
  t.false(one?.includes('secret'));
  t.not(one, other);
});

test('the requests of a connection are read each by itself', (t) => {
  const {read} = bound(t);
  t.like(read(headOf('/one')), {target: '/one', userAgent: 'one', authorization: 'Bearer secret'});
  t.like(read(headOf('/two')), {target: '/two', userAgent: 'one', authorization: 'Bearer secret'});
  t.like(read(headOf('/two', 'Host: b\r\n')), {userAgent: undefined, authorization: undefined});
  t.is(read(headOf('/two', 'Host: b\r\nRange: bytes=0-1\r\n')), undefined);
  t.is(read(headOf('/two', 'Host: b\r\nRange: bytes=0-1\r\n')), undefined);
  t.is(read(headOf('/two').replace('GET', 'PUT')), undefined);
  t.is(read(headOf('/t wo')), undefined);
  t.is(read(headOf('/two\n')), undefined);
  t.is(read(headOf('/two').slice(0, -2)), undefined);
  t.is(read(headOf('/two') + headOf('/two')), undefined);
  t.like(read(headOf('/two')), {target: '/two', userAgent: 'one'});
});

test('a lower limit of the number of fields counts from the next request on', (t) => {
  const limit = {max: 3};
  const {read} = bound(t, () => limit.max);
  t.not(read(headOf('/')), undefined);
  limit.max = 2;
  t.is(read(headOf('/')), undefined);
});

function bound(_t: ExecutionContext, maxFields = () => 100) {
  const connection = createRequestReader(maxFields).connection(0);
  return {read: (head: string) => connection.read(bytesOf(head))};
}
