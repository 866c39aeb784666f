import {htmlPage, mutate, type Random} from './mutations.ts';

type AnswerHeader = readonly [name: string, value: string];

/** An answer before it becomes text. */
export interface AnswerParts {
  status: number;
  headers: readonly AnswerHeader[];
  body: Buffer;
}

/** How an answer that is sent differs from the right one. */
export interface SpoiledAnswer {
  bytes: Buffer;
  /** The connection is reset after the bytes, instead of ended. */
  isReset: boolean;
}

/** None of them says that something is absent. */
const STATUSES = [
  100, 103, 200, 201, 202, 204, 206, 301, 302, 304, 307, 308, 400, 401, 403, 405, 408, 416, 500, 502, 503,
  504, 508, 599, 999,
] as const;

const HEADERS: readonly [AnswerHeader, ...AnswerHeader[]] = [
  ['Content-Length', '0'],
  ['Content-Length', '5'],
  ['Content-Length', '99999999999999999999'],
  ['Content-Length', '-1'],
  ['Content-Length', '1, 2'],
  ['Transfer-Encoding', 'chunked'],
  ['Transfer-Encoding', 'gzip, chunked'],
  ['Content-Encoding', 'gzip'],
  ['Content-Encoding', 'br'],
  ['Content-Range', 'bytes 0-0/1'],
  ['Content-Range', 'bytes 5-1/*'],
  ['Content-Type', 'text/html'],
  ['Content-Type', ''],
  ['Content-Type', 'application/vnd.docker.distribution.manifest.v1+prettyjws'],
  ['Docker-Content-Digest', 'sha256:00'],
  ['Docker-Content-Digest', `sha512:${'0'.repeat(128)}`],
  ['Location', '/'],
  ['Location', '//'],
  ['Location', 'http://[::1'],
  ['Location', 'file:///etc/passwd'],
  ['Location', 'http://169.254.169.254/latest'],
  ['Location', '/v2/a/blobs/uploads/x?y=z'],
  ['Link', '</v2/next>; rel="next"'],
  ['Link', '<>; rel=next'],
  ['Link', `<${'a'.repeat(5000)}>; rel="next"`],
  ['WWW-Authenticate', 'Bearer realm="/token",service="a",scope="b"'],
  ['WWW-Authenticate', 'Bearer realm="http://[",scope='],
  ['WWW-Authenticate', 'Basic'],
  ['WWW-Authenticate', 'Negotiate, Bearer'],
  ['Range', '0-'],
  ['Range', '9-1'],
  ['OCI-Subject', 'sha256:0'],
  ['OCI-Filters-Applied', 'artifactType,'],
  ['OCI-Chunk-Min-Length', '-1'],
  ['OCI-Chunk-Min-Length', '9'.repeat(40)],
  ['RateLimit-Remaining', 'x;w='],
  ['Retry-After', '0'],
  ['Retry-After', 'Wed, 21 Oct 2015 07:28:00 GMT'],
  ['Set-Cookie', 'a=b'],
  ['Date', 'yesterday'],
  ['Warning', '299 - "\u00ff"'],
  ['X-Large', 'x'.repeat(70_000)],
];

const textOf = ({status, headers}: AnswerParts): string =>
  [`HTTP/1.1 ${status} Any`, ...headers.map(([name, value]) => `${name}: ${value}`), '', ''].join('\r\n');

/** The right answer, framed by its length; the connection ends after it. */
export const rightAnswer = (answer: AnswerParts, method: string): Buffer => {
  const {headers, body} = answer;
  const framed = [...headers, ['Content-Length', `${body.length}`], ['Connection', 'close']] as const;
  return Buffer.concat([
    Buffer.from(textOf({...answer, headers: framed}), 'latin1'),
    method === 'HEAD' ? Buffer.alloc(0) : body,
  ]);
};

/** An answer that is wrong in one to three ways: its status, its headers, its framing, its body, or where it ends. */
export function spoiledAnswer(answer: AnswerParts, method: string, random: Random): SpoiledAnswer {
  let {status, body} = answer;
  const headers = [...answer.headers];
  let length: number | undefined = body.length;
  let cut = 1;
  for (let count = 1 + random.below(3); count > 0; count--) {
    switch (random.below(9)) {
      case 0:
        status = random.pick(STATUSES);
        break;
      case 1:
        headers.push(random.pick(HEADERS));
        break;
      case 2:
        headers.splice(random.below(headers.length + 1), 1);
        break;
      case 3:
        length = random.chance(0.5) ? undefined : random.below(2 * body.length + 1);
        break;
      case 4:
        body = Buffer.from(mutate(body.toString('latin1'), random), 'latin1');
        break;
      case 5:
        cut = random.below(1000) / 1000;
        break;
      case 6:
        ({status, body} = htmlPage(random));
        break;
      case 7:
        body = Buffer.concat([body, body]);
        break;
      default:
        headers.push([mutate('Docker-Content-Digest', random), mutate('sha256:0', random)]);
    }
  }
  const framing = length === undefined ? [] : [['Content-Length', `${length}`] as const];
  let head = textOf({status, headers: [...headers, ...framing, ['Connection', 'close']], body});
  if (random.chance(0.1)) head = mutate(head, random);
  const bytes = Buffer.concat([Buffer.from(head, 'latin1'), method === 'HEAD' ? Buffer.alloc(0) : body]);
  return {bytes: bytes.subarray(0, Math.ceil(bytes.length * cut)), isReset: random.chance(0.2)};
}
