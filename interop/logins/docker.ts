import {readFile} from 'node:fs/promises';
import {join} from 'node:path';
import {startEngine} from '../clients/docker.ts';
import {writeDockerConfig} from './docker-config.ts';
import {environmentWithCa, imageName, type LoginClient, pushedName} from './login-client.ts';
import {writeLayer} from './podman.ts';

/** Docker Engine, whose client logs in through its daemon, and keeps a refresh token where it gets one. */
export const docker: LoginClient = {
  name: 'Docker Engine',
  tools: ['dockerd', 'docker'],
  checksLogin: true,
  async open(place) {
    const {scope, tools, host, refreshes} = place;
    const docker = await startEngine(scope, tools, {}, environmentWithCa(place));
    return {
      async login(credential) {
        const {kind} = credential;
        if (kind === 'none') return;
        if (kind === 'password') {
          await docker('login', '--username', credential.user, '--password', credential.secret, host);
          const kept = await readFile(join(scope.folder, '.docker', 'config.json'), 'utf8');
          if (kept.includes('"identitytoken"') !== refreshes)
            throw new Error(`docker keeps ${refreshes ? 'no token' : 'a token'}: ${kept}`);
          return;
        }
        await writeDockerConfig(place, credential);
      },
      async push() {
        await docker('import', await writeLayer(place), pushedName(place));
        await docker('push', pushedName(place));
      },
      async pull() {
        await docker('pull', '--quiet', imageName(place));
        await docker('rmi', imageName(place));
      },
    };
  },
};
