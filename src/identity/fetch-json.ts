import {once} from 'node:events';
import {type ClientRequest, get as getHttp, Agent as HttpAgent, type IncomingMessage} from 'node:http';
import {get as getHttps, Agent as HttpsAgent} from 'node:https';
import {createSecureContext, getCACertificates} from 'node:tls';
import type {Clock} from '../clock.ts';
import {jsonFault} from '../oci/json.ts';

/** From the connection to the last byte of the body. */
const TIMEOUT_MS = 5000;
const MAX_BODY_BYTES = 512 * 1024;

/** Fetches the JSON document at a URL. @throws DocumentFault */
export type FetchJson = (url: string) => Promise<unknown>;

/** A document cannot be fetched, or is not JSON. The message is for the operator. */
export class DocumentFault extends Error {
  override readonly name = 'DocumentFault';
}

export interface FetchJsonParts {
  /** PEM texts of authorities that are trusted in addition to the system's. */
  ca: readonly string[];
  /** Where `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` are read. */
  env: NodeJS.ProcessEnv;
  clock: Clock;
}

/** Follows no redirect, and reads at most 512 KiB within 5 seconds. */
export function createFetchJson({ca, env, clock}: FetchJsonParts): FetchJson {
  const trust =
    ca.length > 0 ? {secureContext: createSecureContext({ca: [...getCACertificates('default'), ...ca]})} : {};
  const http = new HttpAgent({proxyEnv: env});
  const https = new HttpsAgent({proxyEnv: env, ...trust});
  const open = (url: string) => {
    const headers = {accept: 'application/json'};
    return new URL(url).protocol === 'https:'
      ? getHttps(url, {agent: https, headers})
      : getHttp(url, {agent: http, headers});
  };
  /** @throws DocumentFault for a URL that cannot be requested */
  const opened = (url: string): ClientRequest => {
    try {
      return open(url);
    } catch (error) {
      throw new DocumentFault(
        `${url} cannot be requested: ${error instanceof Error ? error.message : error}`,
      );
    }
  };

  return async (url) => {
    const request = opened(url);
    const {promise: late, reject} = Promise.withResolvers<never>();
    const cancel = clock.after(TIMEOUT_MS, () =>
      reject(new DocumentFault(`${url} did not answer within ${TIMEOUT_MS / 1000} s`)),
    );
    try {
      // A request that waits for a forward proxy's tunnel says nothing when it is destroyed.
      return await Promise.race([answerTo(request, url), late]);
    } finally {
      cancel();
      request.destroy();
    }
  };
}

/** @throws DocumentFault */
async function answerTo(request: ClientRequest, url: string): Promise<unknown> {
  // What breaks after the headers is thrown to the reader of the body.
  request.on('error', () => {});
  try {
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    if (response.statusCode !== 200)
      throw new DocumentFault(`${url} answered ${response.statusCode} instead of 200`);
    return parseDocument(await readBody(response, url), url);
  } catch (error) {
    if (error instanceof DocumentFault) throw error;
    throw new DocumentFault(`${url} cannot be read: ${error instanceof Error ? error.message : error}`);
  }
}

async function readBody(response: IncomingMessage, url: string): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES)
      throw new DocumentFault(`${url} answered more than the limit of ${MAX_BODY_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size).toString();
}

/** @param place names the document in the error. @throws DocumentFault */
export function parseDocument(text: string, place: string): unknown {
  const fault = jsonFault(text);
  if (fault !== undefined) throw new DocumentFault(`${place} ${fault}`);
  try {
    return JSON.parse(text);
  } catch {
    throw new DocumentFault(`${place} is not JSON`);
  }
}
