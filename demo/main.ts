import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {attach, type BackrefServer, createServer, listReferrers, loadConfig} from '../src/index.ts';
import {type PulledPiece, pull, push} from './client.ts';
import {makeImage} from './image.ts';
import {type LegacyRegistry, startLegacyRegistry} from './legacy-registry.ts';

const REPOSITORY = 'team/hello';
const SBOM = {
  mediaType: 'application/spdx+json',
  artifactType: 'application/spdx+json',
  data: Buffer.from('{"spdxVersion": "SPDX-2.3", "name": "hello"}'),
};

const OWN_SBOM = {
  mediaType: 'application/vnd.cyclonedx+json',
  artifactType: 'application/vnd.cyclonedx+json',
  data: Buffer.from('{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": []}'),
};

const say = (text = ''): void => console.log(text);
const step = (text: string): void => say(`\n── ${text}`);

function show(pulled: readonly PulledPiece[]): void {
  for (const {what, size, cacheStatus} of pulled) {
    say(`   ${what.padEnd(22)} ${String(size).padStart(7)} B   ${cacheStatus}`);
  }
}

async function showReferrers(proxy: string, subject: string): Promise<void> {
  const response = await fetch(`${proxy}/v2/${REPOSITORY}/referrers/${subject}`);
  const {manifests} = (await response.json()) as {manifests: {digest: string; artifactType: string}[]};
  for (const {digest, artifactType} of manifests) say(`   ${artifactType.padEnd(32)}  ${digest}`);
  say(`   ${response.status}   ${response.headers.get('cache-status')}`);
}

/** Shows the requests to the upstream since the last call. */
function showAsked(legacy: LegacyRegistry): void {
  const asked = legacy.requests.splice(0);
  say(`   requests to the upstream: ${asked.length === 0 ? 'none' : asked.length}`);
  for (const line of asked) say(`     ${line.length > 90 ? `${line.slice(0, 90)}…` : line}`);
}

async function startProxy(folder: string, upstream: string): Promise<{server: BackrefServer; url: string}> {
  const settings = JSON.stringify({
    listen: {host: '127.0.0.1', port: 0},
    storage: {path: folder},
    // No background requests, so that each step shows only its own.
    registries: {
      'legacy.example': {
        default: true,
        upstream: {url: upstream, insecure: true},
        referrers: {prefetch: 'off'},
      },
      // The same upstream again. Content pushed here is stored locally; the upstream is only read.
      'attached.example': {
        upstream: {url: upstream, insecure: true},
        referrers: {prefetch: 'off'},
        push: 'local',
      },
    },
  });
  const server = createServer(await loadConfig({file: 'demo', env: {}, readFile: async () => settings}));
  const {url} = await server.listen();
  return {server, url};
}

async function demonstrate(legacy: LegacyRegistry, proxy: string): Promise<void> {
  const image = makeImage();

  step(`A legacy registry runs at ${legacy.url}, and backref in front of it at ${proxy}`);
  step(`Somebody pushes ${REPOSITORY}:1, for two platforms, to the legacy registry`);
  await push(legacy.url, REPOSITORY, '1', image);
  say(`   ${image.index.digest}`);
  legacy.requests.length = 0;

  step('The first pull through backref: each part is requested once, streamed on, verified and stored');
  show(await pull(proxy, REPOSITORY, '1', image));
  showAsked(legacy);

  step('The second pull: no request reaches the upstream');
  show(await pull(proxy, REPOSITORY, '1', image));
  showAsked(legacy);

  step(
    'Somebody attaches an SBOM to the image, at the legacy registry: without a Referrers API, it is listed in a tag',
  );
  const sbom = await attach(`docker://${legacy.host}/${REPOSITORY}`, image.index.digest, SBOM, {
    plainHttp: true,
  });
  say(`   ${sbom}`);
  const direct = await fetch(`${legacy.url}/v2/${REPOSITORY}/referrers/${image.index.digest}`);
  say(`   the legacy registry's own answer to "what refers to this image?": ${direct.status}`);
  legacy.requests.length = 0;

  step('backref answers it: it reads the tag, fetches each entry, and makes the descriptor from its bytes');
  await showReferrers(proxy, image.index.digest);
  showAsked(legacy);

  legacy.writable = false;
  step(
    'The legacy registry becomes read-only. Somebody attaches their own SBOM to the same image, at backref',
  );
  const overlay = `docker://${new URL(proxy).host}/attached.example/${REPOSITORY}`;
  const ownSbom = await attach(overlay, image.index.digest, OWN_SBOM, {plainHttp: true});
  say(`   ${ownSbom}`);
  showAsked(legacy);

  step("backref lists both: the SBOM in the legacy registry's tag, and the one that is stored here");
  const {manifests} = await listReferrers(overlay, image.index.digest, {plainHttp: true});
  for (const {digest, artifactType} of manifests) say(`   ${artifactType?.padEnd(32)}  ${digest}`);
  showAsked(legacy);

  step('The legacy registry stops. The third pull still works');
  await legacy.stop();
  show(await pull(proxy, REPOSITORY, '1', image));

  step(
    'A manifest that was never pulled gets an error with a reason, and not a 404: it is unknown whether it exists',
  );
  const missing = await fetch(`${proxy}/v2/${REPOSITORY}/manifests/2`);
  say(`   ${missing.status}, Retry-After ${missing.headers.get('retry-after')}`);
  say(`   ${await missing.text()}`);
  say('\nEvery digest was compared with what was pushed.');
}

const folder = await mkdtemp(join(tmpdir(), 'backref-demo-'));
const legacy = await startLegacyRegistry();
const {server, url} = await startProxy(folder, legacy.url);
try {
  await demonstrate(legacy, url);
} finally {
  await server.close();
  await legacy.stop();
  await rm(folder, {recursive: true, force: true});
}
