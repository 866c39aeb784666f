import {Agent, type IncomingHttpHeaders, request} from 'node:http';

/** What came of a request, including what arrived before it failed. */
export interface Exchange {
  method: string;
  url: string;
  /** Undefined when no response began. */
  status: number | undefined;
  headers: IncomingHttpHeaders;
  body: Buffer;
  /** Why it is not complete; undefined when it is. */
  failure: string | undefined;
}

export interface Asked {
  method?: string;
  url: string;
  headers?: Record<string, string | number>;
  body?: Buffer;
}

export type Ask = (asked: Asked) => Promise<Exchange>;

/** Nothing that is injected takes longer; a machine that is busy with other work may. */
const STALLED_MS = 60_000;
export const STALLED = `no progress for ${STALLED_MS / 1000} s`;

/** A client that keeps every byte it received. Never throws. */
export function createHttpClient(): Ask {
  const agent = new Agent({keepAlive: true, maxSockets: 64});
  return ({method = 'GET', url, headers = {}, body}) => {
    const {promise, resolve} = Promise.withResolvers<Exchange>();
    const chunks: Buffer[] = [];
    const exchange: Exchange = {
      ...{method, url, status: undefined, headers: {}, body: Buffer.alloc(0)},
      failure: 'no response',
    };
    const end = (failure: string | undefined) => resolve({...exchange, body: Buffer.concat(chunks), failure});
    const length = body === undefined ? {} : {'content-length': body.length};
    const sent = request(url, {agent, method, headers: {...length, ...headers}}, (response) => {
      exchange.status = response.statusCode;
      exchange.headers = response.headers;
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => end(undefined));
      response.on('error', (error) => end(error.message));
      response.on('close', () => end('the connection was closed'));
    });
    sent.on('error', (error) => end(error.message));
    sent.setTimeout(STALLED_MS, () => {
      end(STALLED);
      sent.destroy();
    });
    sent.end(body);
    return promise;
  };
}

/** All manifest types that exist here, as clients send them. */
export const ACCEPT = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
].join(', ');
