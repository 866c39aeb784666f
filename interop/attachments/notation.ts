import {mkdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import type {Scope} from '../../rig/scope.ts';
import {cleanEnvironment} from '../clients/client.ts';
import {type Attachment, reference} from './attachment.ts';

/** Of the test certificate. */
export const NAME = 'interop.example';

/** notation with its own certificate and a policy that trusts nothing else. */
export const notation: Attachment = {
  name: 'notation, sign and verify',
  tools: ['notation'],
  limits: [
    {
      look: 'image pulled, stopped',
      because: 'refused: the signature is not here',
      says: /\/blobs\/.*\b503\b/,
    },
  ],
  async attach(place) {
    const {scope, tools} = place;
    const path = tools.path('notation');
    // Keys, certificates and policy; its other folders follow the home of each look.
    const settings = join(scope.folder, 'settings');
    const run = (own: Scope, args: readonly string[]) =>
      own.run(path, args, {env: {...cleanEnvironment(own), XDG_CONFIG_HOME: settings}});
    await run(scope, ['cert', 'generate-test', '--default', NAME]);
    await writePolicy(join(settings, 'notation'));
    // With its default, to write the tag in any case, olareg 0.2.2 loses the referrer: when a tag's index equals the
    // API's answer byte by byte, it keeps only the tag.
    await run(scope, ['sign', '--force-referrers-tag=false', '--insecure-registry', reference(place)]);
    return async (where) => {
      await run(where.scope, ['verify', '--insecure-registry', reference(where)]);
    };
  },
};

/** Writes a policy that trusts the test certificate of that name, and nothing else. */
export async function writePolicy(folder: string): Promise<void> {
  const policy = {
    name: 'interop',
    registryScopes: ['*'],
    signatureVerification: {level: 'strict'},
    trustStores: [`ca:${NAME}`],
    trustedIdentities: ['*'],
  };
  await mkdir(folder, {recursive: true});
  await writeFile(
    join(folder, 'trustpolicy.json'),
    JSON.stringify({version: '1.0', trustPolicies: [policy]}),
  );
}
