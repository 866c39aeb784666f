import {once} from 'node:events';
import {createServer, type IncomingMessage, type ServerResponse} from 'node:http';
import type {AddressInfo} from 'node:net';
import {LRUCache} from 'lru-cache';
import type {Scope} from '../rig/scope.ts';
import {OCI_INDEX} from '../src/oci/media-type.ts';
import {ARTIFACT_TYPE, descriptorOf, imageOf, type SoakContent, type SoakImage} from './images.ts';

/** Images that are kept instead of being made again. */
const MAX_IMAGES = 100;

export interface SoakUpstream {
  url: string;
  /** Requests received so far. */
  requests(): number;
}

/** A registry with a Referrers API that has an image under every name. Ends with the scope. */
export async function startSoakUpstream(scope: Scope): Promise<SoakUpstream> {
  const images = new LRUCache<string, SoakImage>({max: MAX_IMAGES, memoMethod: imageOf});
  let requests = 0;
  const server = createServer((request, response) => {
    requests += 1;
    answer(request, response, (name) => images.memo(name));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  scope.defer(() => {
    server.close();
    server.closeAllConnections();
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests: () => requests,
  };
}

function answer(
  {url = '', headers}: IncomingMessage,
  response: ServerResponse,
  imageNamed: (name: string) => SoakImage,
): void {
  const [, name, kind, reference = ''] =
    /^\/v2\/(.+)\/(manifests|blobs|referrers|tags)\/([^/?]+)/.exec(url) ?? [];
  if (name === undefined) return void response.writeHead(url === '/v2/' ? 200 : 404).end();
  const found = contentAt(imageNamed(name), `${kind}/${reference}`);
  if (!found) return void response.writeHead(404).end();
  const {bytes, digest, mediaType} = found;
  const [, first] = /^bytes=(\d+)-$/.exec(headers.range ?? '') ?? [];
  const start = Number(first ?? 0);
  response.writeHead(first === undefined ? 200 : 206, {
    'Content-Type': mediaType,
    'Docker-Content-Digest': digest,
    'Content-Length': bytes.length - start,
    ...(first === undefined ? {} : {'Content-Range': `bytes ${start}-${bytes.length - 1}/${bytes.length}`}),
  });
  response.end(bytes.subarray(start));
}

function contentAt(image: SoakImage, path: string): SoakContent | undefined {
  const {index, manifest, referrer, blobs} = image;
  if (path === 'tags/list') return listed('application/json', {name: image.repository, tags: ['1']});
  if (path === 'manifests/1') return index;
  if (path === `referrers/${index.digest}`)
    return listed(OCI_INDEX, {manifests: [{...descriptorOf(referrer), artifactType: ARTIFACT_TYPE}]});
  if (path.startsWith('referrers/')) return listed(OCI_INDEX, {manifests: []});
  const digest = path.slice(path.indexOf('/') + 1);
  const all = path.startsWith('blobs/') ? blobs : [index, manifest, referrer];
  return all.find((content) => content.digest === digest);
}

const listed = (mediaType: string, value: object): SoakContent => ({
  mediaType,
  digest: '',
  bytes: Buffer.from(JSON.stringify({schemaVersion: 2, mediaType, ...value})),
});
