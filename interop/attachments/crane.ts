import {mkdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {type Content, content, descriptor} from '../../rig/image.ts';
import type {Scope} from '../../rig/scope.ts';
import {cleanEnvironment, expectSame} from '../clients/client.ts';
import type {Attachment} from './attachment.ts';
import {discover} from './oras.ts';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const INDEX = 'application/vnd.oci.image.index.v1+json';

/** crane, which has no command to attach, but pushes a manifest with a subject from a layout. */
export const crane: Attachment = {
  name: 'crane, push with a subject; oras discover',
  tools: ['crane', 'oras'],
  limits: [],
  async attach({scope, tools, host, image}) {
    const config = content('application/vnd.example.sbom+json', Buffer.from('{}'));
    const layer = content('application/json', Buffer.from(JSON.stringify({sbom: image.repository})));
    const manifest = json(MANIFEST, {
      schemaVersion: 2,
      mediaType: MANIFEST,
      artifactType: config.mediaType,
      config: descriptor(config),
      layers: [descriptor(layer)],
      subject: descriptor(image.index),
    });
    const layout = await writeLayout(scope, manifest, [config, layer]);
    const command = ['push', '--insecure', layout, `${host}/${image.repository}:sbom`];
    await scope.run(tools.path('crane'), command, {env: cleanEnvironment(scope)});
    return async (where) => expectSame('the list', [manifest.digest], await discover(where, []));
  },
};

/** An OCI image layout of one manifest (image-spec, Image Layout). */
async function writeLayout(scope: Scope, manifest: Content, blobs: readonly Content[]): Promise<string> {
  const folder = join(scope.folder, 'layout');
  await mkdir(join(folder, 'blobs', 'sha256'), {recursive: true});
  const index = {schemaVersion: 2, mediaType: INDEX, manifests: [descriptor(manifest)]};
  await writeFile(join(folder, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  await writeFile(join(folder, 'index.json'), JSON.stringify(index));
  for (const {digest, bytes} of [manifest, ...blobs]) {
    await writeFile(join(folder, 'blobs', ...digest.split(':')), bytes);
  }
  return folder;
}

const json = (mediaType: string, value: unknown): Content =>
  content(mediaType, Buffer.from(JSON.stringify(value)));
