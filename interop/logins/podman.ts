import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {gunzipSync} from 'node:zlib';
import {podmanIn} from '../clients/podman.ts';
import {certificateFolder} from './certificates.ts';
import {writeDockerConfig} from './docker-config.ts';
import {environment, imageName, type LoginClient, type LoginPlace, pushedName} from './login-client.ts';

export const podman: LoginClient = {
  name: 'Podman',
  tools: ['podman'],
  checksLogin: true,
  cannot: {'access token': 'it has no option for one'},
  async open(place) {
    const {scope, tools, host, ca} = place;
    const {command: run, policy} = await podmanIn(scope, tools, environment(place));
    const certificates = await certificateFolder(scope, ca);
    const trust = certificates === undefined ? [] : ['--cert-dir', certificates];
    return {
      async login(credential) {
        const {kind} = credential;
        if (kind === 'none') return;
        if (kind !== 'password') return writeDockerConfig(place, credential);
        await run('login', ...trust, '--username', credential.user, '--password', credential.secret, host);
      },
      async push() {
        await run('import', '--quiet', await writeLayer(place), pushedName(place));
        await run('push', '--quiet', ...trust, ...policy, pushedName(place));
      },
      async pull() {
        await run('pull', '--quiet', ...trust, ...policy, imageName(place));
        await run('rmi', imageName(place));
      },
    };
  },
};

/** Writes a layer as a tar archive, of which engines make an image. @returns its path */
export async function writeLayer({scope, own}: LoginPlace): Promise<string> {
  const [layer] = own.platforms.flatMap(({layers}) => layers);
  if (!layer) throw new Error('the image has no layer');
  const file = join(scope.folder, 'layer.tar');
  await writeFile(file, gunzipSync(layer.bytes));
  return file;
}
