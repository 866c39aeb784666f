import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {type Client, cleanEnvironment, expectAll, expectSame} from './client.ts';
import {hostPlatform} from './platform.ts';
import {mirrorDockerIo} from './registries-conf.ts';

/** Podman with a storage of its own, and docker.io mirrored in `registries.conf`. */
export const podman: Client = {
  name: 'Podman, registries.conf',
  tools: ['podman'],
  async pull({scope, tools, host, images}) {
    await mirrorDockerIo(scope, host);
    const env = cleanEnvironment(scope);
    const policy = join(scope.folder, 'policy.json');
    await writeFile(policy, JSON.stringify({default: [{type: 'insecureAcceptAnything'}]}));
    const storage = ['--root', join(scope.folder, 'root'), '--runroot', join(scope.folder, 'run')];
    const settings = [...storage, '--tmpdir', join(scope.folder, 'tmp'), '--storage-driver', 'vfs'];
    const command = (...args: string[]) => scope.run(tools.path('podman'), [...settings, ...args], {env});

    for (const image of images) {
      const name = `docker.io/${image.repository}`;
      await command('pull', '--quiet', '--signature-policy', policy, `${name}:${image.tag}`);
      const [found] = JSON.parse(await command('image', 'inspect', `${name}:${image.tag}`));
      const platform = hostPlatform(image);
      const digests = [image.index, platform.manifest].map(({digest}) => `${name}@${digest}`);
      expectAll('the repository digests', digests, found.RepoDigests);
      expectSame('the image', [platform.config.digest], [`sha256:${found.Id}`]);
      expectSame('the list of layers', platform.diffIds, found.RootFS.Layers);
    }
  },
};
