import {mkdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {ready, type Scope} from '../../rig/scope.ts';
import type {Toolbox} from '../../rig/tools.ts';
import {type Client, cleanEnvironment, expectAll} from './client.ts';
import {everyDigest, hashFiles} from './copied-files.ts';

/** containerd: its own daemon, and a `hosts.toml` that puts the registry before docker.io. */
export const containerd: Client = {
  name: 'containerd, hosts.toml',
  tools: ['containerd', 'ctr'],
  async pull({scope, tools, host, images}) {
    const hosts = join(scope.folder, 'hosts');
    await mkdir(join(hosts, 'docker.io'), {recursive: true});
    const entry = `server = "https://docker.io"\n[host."http://${host}"]\n  capabilities = ["pull", "resolve"]\n`;
    await writeFile(join(hosts, 'docker.io', 'hosts.toml'), entry);

    const {ctr, blobs} = await startContainerd(scope, tools);
    for (const {repository, tag} of images) {
      await ctr(
        'content',
        'fetch',
        '--hosts-dir',
        hosts,
        '--all-platforms',
        `docker.io/${repository}:${tag}`,
      );
    }
    const hashed = await hashFiles(blobs);
    for (const image of images) expectAll('the contents', everyDigest(image), hashed);
  },
};

/**
 * Starts a daemon with its files in the scope's folder.
 * @param surroundings variables of it and its client, besides their home
 * @param cri the settings of its CRI plugin, which is off without them
 * @returns a function that runs its client and returns the output, its socket, and the folder of its content.
 */
export async function startContainerd(
  scope: Scope,
  tools: Toolbox,
  surroundings: NodeJS.ProcessEnv = {},
  cri = '',
): Promise<{ctr: (...args: string[]) => Promise<string>; socket: string; blobs: string}> {
  const [root, socket] = [join(scope.folder, 'root'), join(scope.folder, 'c.sock')];
  const config = join(scope.folder, 'config.toml');
  const lines = [
    'version = 2',
    `root = "${root}"`,
    `state = "${join(scope.folder, 'state')}"`,
    `disabled_plugins = [${cri ? '' : '"io.containerd.grpc.v1.cri", '}"io.containerd.internal.v1.opt"]`,
    `[grpc]\n  address = "${socket}"`,
    cri,
  ];
  await writeFile(config, `${lines.join('\n')}\n`);
  const env = {...cleanEnvironment(scope), ...surroundings};
  const daemon = scope.start(tools.path('containerd'), ['--config', config], {env});
  const ctr = (...args: string[]) => scope.run(tools.path('ctr'), ['--address', socket, ...args], {env});
  await ready(daemon, 'containerd', () => ctr('version').then(() => true));
  return {ctr, socket, blobs: join(root, 'io.containerd.content.v1.content', 'blobs', 'sha256')};
}
