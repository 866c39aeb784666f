import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {ready, type Scope} from '../../rig/scope.ts';
import type {Toolbox} from '../../rig/tools.ts';
import {type Client, cleanEnvironment, expectAll, expectSame} from './client.ts';
import {hostPlatform} from './platform.ts';

/** Docker Engine: its own daemon, with the registry as its `registry-mirrors`. */
export const docker: Client = {
  name: 'Docker Engine, registry-mirrors',
  tools: ['dockerd', 'docker'],
  async pull({scope, tools, host, images}) {
    const docker = await startEngine(scope, tools, {'registry-mirrors': [`http://${host}`]});
    for (const image of images) {
      const name = image.repository.replace(/^library\//, '');
      await docker('pull', '--quiet', `${name}:${image.tag}`);
      const [found] = JSON.parse(await docker('image', 'inspect', `${name}:${image.tag}`));
      const platform = hostPlatform(image);
      expectAll('the repository digests', [`${name}@${image.index.digest}`], found.RepoDigests);
      expectSame('the image', [platform.config.digest], [found.Id]);
      expectSame('the list of layers', platform.diffIds, found.RootFS.Layers);
    }
  },
};

/**
 * Starts a daemon with its files in the scope's folder, which accepts all registries of this machine without TLS.
 * @param surroundings variables of both, besides their home
 * @returns a function that runs its client and returns the output.
 */
export async function startEngine(
  scope: Scope,
  tools: Toolbox,
  settings: Readonly<Record<string, unknown>> = {},
  surroundings: NodeJS.ProcessEnv = {},
): Promise<(...args: string[]) => Promise<string>> {
  const socket = `unix://${scope.folder}/d.sock`;
  const file = join(scope.folder, 'daemon.json');
  const config = {
    bridge: 'none',
    iptables: false,
    ip6tables: false,
    'storage-driver': 'vfs',
    'data-root': join(scope.folder, 'data'),
    'exec-root': join(scope.folder, 'exec'),
    pidfile: join(scope.folder, 'docker.pid'),
    hosts: [socket],
    'insecure-registries': ['127.0.0.0/8'],
    ...settings,
  };
  await writeFile(file, JSON.stringify(config));
  const env = {...cleanEnvironment(scope), ...surroundings, DOCKER_HOST: socket};
  const daemon = scope.start(tools.path('dockerd'), ['--config-file', file], {env});
  const command = (...args: string[]) => scope.run(tools.path('docker'), args, {env});
  await ready(daemon, 'dockerd', () => command('version').then(() => true));
  return command;
}
