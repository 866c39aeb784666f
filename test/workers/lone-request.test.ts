import test from 'ava';
import {isLoneRequest} from '../../src/workers/lone-request.ts';

const HEAD = 'GET /v2/ HTTP/1.1\r\nHost: a\r\n';

const CASES: [title: string, text: string, expected: boolean][] = [
  ['a request', `${HEAD}\r\n`, true],
  ['HEAD', `HEAD /v2/ HTTP/1.1\r\nHost: a\r\n\r\n`, true],
  ['a field that is not known', `${HEAD}X-Anything: content-length: 1\r\n\r\n`, true],
  ['a part of a request', HEAD, false],
  ['two requests', `${HEAD}\r\n${HEAD}\r\n`, false],
  ['a request and a part of the next', `${HEAD}\r\nGET /`, false],
  ['a length', `${HEAD}Content-Length: 0\r\n\r\n`, false],
  ['a length in other letters, with a space', `${HEAD}cOntent-length : 5\r\n\r\n`, false],
  ['a body in chunks', `${HEAD}Transfer-Encoding: chunked\r\n\r\n`, false],
  ['an expectation', `${HEAD}Expect: 100-continue\r\n\r\n`, false],
  ['another protocol', `${HEAD}Upgrade: h2c\r\n\r\n`, false],
  [
    'lines that end without a carriage return',
    'GET / HTTP/1.1\nHost: a\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n',
    false,
  ],
  ['a length after such a line', `${HEAD}X: a\nContent-Length: 5\r\n\r\n`, false],
  ['another method', 'POST /v2/ HTTP/1.1\r\nHost: a\r\n\r\n', false],
  ['the rest of a request', 'X: a\r\n\r\n', false],
  ['nothing', '', false],
];
for (const [title, text, expected] of CASES)
  test(`${title}: ${expected ? 'the next request begins after it' : 'not certain'}`, (t) => {
    t.is(isLoneRequest(Buffer.from(text, 'latin1')), expected);
  });
