import {readFile} from 'node:fs/promises';
import {join} from 'node:path';
import {expectAll, expectSame} from '../clients/client.ts';
import {podmanIn} from '../clients/podman.ts';
import {oneImage, pushedTag, type ToolPush} from './push.ts';

/** Podman, which pushes its own platform of an image and recompresses the layers. */
export const podman: ToolPush = {
  name: 'Podman, push',
  tools: ['podman'],
  overlay: 'allow',
  async push(target) {
    const {scope, tools, source} = target;
    const {command, policy} = await podmanIn(scope, tools);
    await command('pull', '--quiet', '--tls-verify=false', ...policy, source);
    const file = join(scope.folder, 'digest');
    const settings = ['--quiet', '--tls-verify=false', ...policy, '--digestfile', file];
    await command('push', ...settings, source, `docker://${pushedTag(target)}`);
    const digest = (await readFile(file, 'utf8')).trim();
    const [{Id: id}] = JSON.parse(await command('image', 'inspect', source));
    return oneImage(target, digest, async (where) => {
      const other = await podmanIn(where.scope, where.tools);
      await other.command('pull', '--quiet', '--tls-verify=false', ...other.policy, pushedTag(where));
      const [found] = JSON.parse(await other.command('image', 'inspect', pushedTag(where)));
      expectAll(
        'the repository digests',
        [`${where.host}/${where.image.repository}@${digest}`],
        found.RepoDigests,
      );
      expectSame('the image', [id], [found.Id]);
    });
  },
};
