import {createHash} from 'node:crypto';
import type {Image} from './image.ts';

/** What a client sees of one pulled piece. */
export interface PulledPiece {
  what: string;
  size: number;
  /** The proxy's `Cache-Status`, which says where the answer came from. */
  cacheStatus: string;
}

/** Pushes an image to a registry: blobs first, manifests last. */
export async function push(
  registry: string,
  repository: string,
  tag: string,
  {index, platforms}: Image,
): Promise<void> {
  for (const {manifest, blobs} of platforms) {
    for (const {digest, bytes} of blobs) {
      const session = await expectStatus(
        fetch(`${registry}/v2/${repository}/blobs/uploads/`, {method: 'POST'}),
        202,
      );
      const location = new URL(session.headers.get('location') ?? '', registry);
      location.searchParams.set('digest', digest);
      await expectStatus(fetch(location, {method: 'PUT', body: bytes}), 201);
    }
    await putManifest(registry, repository, manifest.digest, manifest);
  }
  await putManifest(registry, repository, tag, index);
}

async function putManifest(
  registry: string,
  repository: string,
  reference: string,
  {bytes, mediaType}: {bytes: Buffer; mediaType: string},
): Promise<void> {
  const url = `${registry}/v2/${repository}/manifests/${reference}`;
  await expectStatus(fetch(url, {method: 'PUT', body: bytes, headers: {'Content-Type': mediaType}}), 201);
}

/** Pulls every platform of an image and compares each byte's digest with what was pushed. */
export async function pull(
  proxy: string,
  repository: string,
  tag: string,
  {index, platforms}: Image,
): Promise<PulledPiece[]> {
  const base = `${proxy}/v2/${repository}`;
  const pulled = [await get(`${base}/manifests/${tag}`, `index ${tag}`, index.digest)];
  for (const {name, manifest, blobs} of platforms) {
    pulled.push(await get(`${base}/manifests/${manifest.digest}`, `manifest ${name}`, manifest.digest));
    for (const {digest} of blobs)
      pulled.push(await get(`${base}/blobs/${digest}`, `blob of ${name}`, digest));
  }
  return pulled;
}

async function get(url: string, what: string, digest: string): Promise<PulledPiece> {
  const response = await expectStatus(fetch(url), 200);
  const bytes = Buffer.from(await response.arrayBuffer());
  const actual = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  if (actual !== digest) throw new Error(`${what}: pushed as ${digest}, pulled as ${actual}`);
  return {what, size: bytes.length, cacheStatus: response.headers.get('cache-status') ?? ''};
}

async function expectStatus(answer: Promise<Response>, status: number): Promise<Response> {
  const response = await answer;
  if (response.status === status) return response;
  throw new Error(`${response.url} answered ${response.status}: ${await response.text()}`);
}
