import {join} from 'node:path';
import type {Scope} from '../../rig/scope.ts';
import {cleanEnvironment} from '../clients/client.ts';
import {type Attachment, type KnownLimit, reference} from './attachment.ts';

// Offline: without the public transparency log and the signing configuration that names it.
export const OFFLINE = ['--use-signing-config=false', '--tlog-upload=false', '-y'];
export const VERIFY_OFFLINE = ['--insecure-ignore-tlog=true'];
const HTTP = '--allow-http-registry';

/** When cosign cannot get a bundle, it also requests the old tag, and reports only that. */
const UNAVAILABLE = /\.sig: UNAVAILABLE: /;

/** cosign with its own key, as it signs today: a bundle that refers to the image. */
export const cosignBundle = signing(
  'cosign, sign and verify',
  [],
  [{look: 'image pulled, stopped', because: 'refused: the bundle is not here', says: UNAVAILABLE}],
);

/** The same as it signed before there were referrers: an image under its own tag. */
export const cosignTag = signing(
  'cosign, sign with the old `.sig` tag and verify',
  ['--new-bundle-format=false'],
  [{look: 'image pulled, stopped', because: 'refused: the tag is not here', says: UNAVAILABLE}],
);

function signing(name: string, format: readonly string[], limits: readonly KnownLimit[]): Attachment {
  return {
    name,
    tools: ['cosign'],
    limits,
    async attach(place) {
      const {scope, tools} = place;
      const path = tools.path('cosign');
      const settings = {env: environment(scope), cwd: scope.folder};
      await scope.run(path, ['generate-key-pair'], settings);
      await scope.run(
        path,
        ['sign', '--key', 'cosign.key', ...OFFLINE, HTTP, ...format, reference(place)],
        settings,
      );
      const key = join(scope.folder, 'cosign.pub');
      const verify = ['verify', '--key', key, ...VERIFY_OFFLINE, HTTP];
      return async (where) => {
        await where.scope.run(path, [...verify, reference(where)], {env: environment(where.scope)});
      };
    },
  };
}

const environment = (scope: Scope): NodeJS.ProcessEnv => ({
  ...cleanEnvironment(scope),
  COSIGN_PASSWORD: 'interop',
});
