import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import type {Image} from '../../rig/image.ts';
import {cleanEnvironment, expectAll} from '../clients/client.ts';
import {hashFiles} from '../clients/copied-files.ts';
import {crane as puller} from '../clients/copiers.ts';
import {OURS, oneImage, type PushTarget, pulledBy, pushedTag, type ToolPush} from './push.ts';

/** crane, which pushes from a folder, copies within a registry, and adds a layer to an existing image. */
export const crane: readonly ToolPush[] = [
  {
    name: 'crane, push',
    tools: ['crane'],
    overlay: 'allow',
    async push(target) {
      const folder = join(target.scope.folder, 'layout');
      await run(target, ['pull', '--format', 'oci', target.source, folder]);
      await run(target, ['push', folder, pushedTag(target)]);
      return oneImage(target, OURS.index.digest, pulledBy(puller));
    },
  },
  {
    // A copy within a registry mounts the blobs (dist-spec, Mounting a blob from another repository).
    name: 'crane, copy',
    tools: ['crane'],
    overlay: 'allow',
    async push(target) {
      const {host, image} = target;
      const copied: Image = {...image, repository: `${image.repository}/copy`, tag: OURS.tag};
      const from = `${host}/${image.repository}:${image.tag}`;
      await run(target, ['copy', from, `${host}/${copied.repository}:${copied.tag}`]);
      const {digest} = image.index;
      return {
        manifests: [{repository: copied.repository, reference: copied.tag, digest}],
        attached: {subject: digest, count: 0},
        find: ({scope, tools, host}) => puller.pull({scope, tools, host, images: [copied]}),
      };
    },
  },
  {
    // The layers of the base exist already and are not uploaded.
    name: 'crane, append',
    tools: ['crane'],
    overlay: 'allow',
    async push(target) {
      const {scope, host, image} = target;
      const [added] = OURS.platforms.flatMap(({layers}) => layers);
      if (!added) throw new Error('the image has no layer to append');
      const file = join(scope.folder, 'layer.tar.gz');
      await writeFile(file, added.bytes);
      const base = ['--base', `${host}/${image.repository}:${image.tag}`, '--platform', 'linux/amd64'];
      const printed = await run(target, ['append', ...base, '-f', file, '-t', pushedTag(target)]);
      const digest = printed.trim().split('@')[1] ?? '';
      const layers = image.platforms.find(({architecture}) => architecture === 'amd64')?.layers ?? [];
      const expected = [digest, ...[...layers, added].map((layer) => layer.digest)];
      return oneImage(target, digest, async (where) => {
        const folder = join(where.scope.folder, 'appended');
        await run(where, ['pull', '--format', 'oci', pushedTag(where), folder]);
        expectAll('the copied files', expected, await hashFiles(folder));
      });
    },
  },
];

const run = ({scope, tools}: Pick<PushTarget, 'scope' | 'tools'>, args: readonly string[]): Promise<string> =>
  scope.run(tools.path('crane'), ['--insecure', ...args], {env: cleanEnvironment(scope)});
