import {join} from 'node:path';
import type {Scope} from '../../rig/scope.ts';
import type {Toolbox} from '../../rig/tools.ts';
import {type Client, cleanEnvironment, expectAll, expectSame} from './client.ts';
import {containerStorage} from './container-storage.ts';
import {hostPlatform} from './platform.ts';
import {mirrorDockerIo} from './registries-conf.ts';

/** Podman with its own storage, and docker.io mirrored in `registries.conf`. */
export const podman: Client = {
  name: 'Podman, registries.conf',
  tools: ['podman'],
  async pull({scope, tools, host, images}) {
    await mirrorDockerIo(scope, host);
    const {command, policy} = await podmanIn(scope, tools);
    for (const image of images) {
      const name = `docker.io/${image.repository}`;
      await command('pull', '--quiet', ...policy, `${name}:${image.tag}`);
      const [found] = JSON.parse(await command('image', 'inspect', `${name}:${image.tag}`));
      const platform = hostPlatform(image);
      const digests = [image.index, platform.manifest].map(({digest}) => `${name}@${digest}`);
      expectAll('the repository digests', digests, found.RepoDigests);
      expectSame('the image', [platform.config.digest], [`sha256:${found.Id}`]);
      expectSame('the list of layers', platform.diffIds, found.RootFS.Layers);
    }
  },
};

/**
 * Podman with its storage in the scope's folder.
 * @param surroundings its variables, besides its home
 * @returns the command, and the options of those that pull or push.
 */
export async function podmanIn(scope: Scope, tools: Toolbox, surroundings: NodeJS.ProcessEnv = {}) {
  const env = {...cleanEnvironment(scope), ...surroundings};
  const storage = await containerStorage(scope);
  const settings = [...storage.options, '--tmpdir', join(scope.folder, 'tmp')];
  const command = (...args: string[]) => scope.run(tools.path('podman'), [...settings, ...args], {env});
  return {command, policy: storage.policy};
}
