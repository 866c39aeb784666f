import {createHash} from 'node:crypto';
import {type Agent, get} from 'node:http';
import {performance} from 'node:perf_hooks';

export interface Download {
  /** Of the bytes that arrived. */
  digest: string;
  /** Milliseconds from sending the request. */
  firstByte: number;
  /** Milliseconds from sending the request. */
  whole: number;
}

/**
 * Downloads a URL of a registry and hashes it.
 * @param agent whose connections are used; default a new one.
 * @throws Error when the status is not 200, or the connection breaks.
 */
export function download(url: string, agent?: Agent): Promise<Download> {
  const {promise, resolve, reject} = Promise.withResolvers<Download>();
  const began = performance.now();
  const request = get(url, {agent: agent ?? false, headers: {accept: ACCEPT}}, (response) => {
    const hash = createHash('sha256');
    let firstByte: number | undefined;
    response.on('data', (chunk: Buffer) => {
      firstByte ??= performance.now() - began;
      hash.update(chunk);
    });
    response.on('error', reject);
    response.on('end', () => {
      const whole = performance.now() - began;
      if (response.statusCode !== 200) return reject(new Error(`${url} answered ${response.statusCode}`));
      resolve({digest: `sha256:${hash.digest('hex')}`, firstByte: firstByte ?? whole, whole});
    });
  });
  request.on('error', reject);
  request.setTimeout(60_000, () => request.destroy(new Error(`${url} was silent for a minute`)));
  return promise;
}

/** The load generators' Accept, because distribution converts manifests that are not accepted. */
export const ACCEPT = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
].join(', ');

/** The middle value, or the mean of the two middle ones. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);
  const [low = 0, high = low] = sorted.length % 2 ? [sorted[half]] : [sorted[half - 1], sorted[half]];
  return (low + high) / 2;
}
