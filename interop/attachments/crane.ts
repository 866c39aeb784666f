import {type Content, content, descriptor} from '../../rig/image.ts';
import {cleanEnvironment, expectSame} from '../clients/client.ts';
import {writeLayout} from '../layout.ts';
import type {Attachment} from './attachment.ts';
import {discover} from './oras.ts';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

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

const json = (mediaType: string, value: unknown): Content =>
  content(mediaType, Buffer.from(JSON.stringify(value)));
