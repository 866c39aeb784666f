import {readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import type {Scope} from '../../rig/scope.ts';
import type {Toolbox} from '../../rig/tools.ts';
import {cleanEnvironment, expectSame} from '../clients/client.ts';
import {containerStorage} from '../clients/container-storage.ts';
import {oneImage, pushedTag, type ToolPush} from './push.ts';

/** Buildah, which pushes an image that it built. */
export const buildah: ToolPush = {
  name: 'Buildah, push',
  tools: ['buildah'],
  overlay: 'allow',
  async push(target) {
    const {scope, tools} = target;
    const {command, policy} = await buildahIn(scope, tools);
    const [file, digestFile] = [join(scope.folder, 'hello'), join(scope.folder, 'digest')];
    await writeFile(file, 'hello from buildah\n');
    const container = (await command('from', ...policy, 'scratch')).trim();
    await command('add', container, file, '/hello');
    const id = (await command('commit', '--quiet', ...policy, container, 'built:1')).trim();
    const settings = ['--quiet', '--tls-verify=false', ...policy, '--digestfile', digestFile];
    await command('push', ...settings, 'built:1', `docker://${pushedTag(target)}`);
    const digest = (await readFile(digestFile, 'utf8')).trim();
    return oneImage(target, digest, async (where) => {
      const other = await buildahIn(where.scope, where.tools);
      await other.command('pull', '--quiet', '--tls-verify=false', ...other.policy, pushedTag(where));
      const found = JSON.parse(await other.command('inspect', '--type', 'image', pushedTag(where)));
      expectSame('the manifest', [digest], [found.FromImageDigest]);
      expectSame('the image', [id], [found.FromImageID]);
    });
  },
};

async function buildahIn(scope: Scope, tools: Toolbox) {
  const {options, policy} = await containerStorage(scope);
  const settings = {env: {...cleanEnvironment(scope), BUILDAH_ISOLATION: 'chroot'}};
  const command = (...args: string[]) => scope.run(tools.path('buildah'), [...options, ...args], settings);
  return {command, policy};
}
