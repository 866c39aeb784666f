import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import type {Place} from '../attachments/attachment.ts';
import {cleanEnvironment, expectAll} from '../clients/client.ts';
import {everyDigest, hashFiles} from '../clients/copied-files.ts';
import {OURS, oneImage, pushedTag, type ToolPush} from './push.ts';

/** regctl, which copies an image together with its referrers. */
export const regctl: ToolPush = {
  name: 'regctl, image copy --referrers',
  tools: ['regctl'],
  overlay: 'allow',
  async push(target) {
    const {scope, source} = target;
    const layout = `ocidir://${join(scope.folder, 'layout')}:${OURS.tag}`;
    await run(target, ['image', 'copy', source, layout]);
    const file = join(scope.folder, 'sbom.json');
    await writeFile(file, JSON.stringify({sbom: OURS.repository}));
    const artifact = ['--artifact-type', 'application/vnd.example.sbom+json', '--file', file];
    const output = ['--format', '{{.Manifest.GetDescriptor.Digest}}'];
    const attached = (
      await run(target, ['artifact', 'put', '--subject', layout, ...artifact, ...output])
    ).trim();
    await run(target, ['image', 'copy', '--referrers', layout, pushedTag(target)]);
    const {digest} = OURS.index;
    const pushed = oneImage(target, digest, async (where) => {
      const folder = join(where.scope.folder, 'copy');
      await run(where, ['image', 'copy', '--referrers', pushedTag(where), `ocidir://${folder}:${OURS.tag}`]);
      expectAll('the copied files', [...everyDigest(OURS), attached], await hashFiles(folder));
    });
    return {...pushed, attached: {subject: digest, count: 1}};
  },
};

const run = (
  {scope, tools, host, source}: Place & {source?: string},
  args: readonly string[],
): Promise<string> => {
  const hosts = [host, ...(source ? [source.split('/')[0]] : [])];
  const insecure = hosts.flatMap((each) => ['--host', `reg=${each},tls=disabled`]);
  return scope.run(tools.path('regctl'), [...insecure, ...args], {env: cleanEnvironment(scope)});
};
