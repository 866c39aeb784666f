import {expectAll, expectSame} from '../clients/client.ts';
import {startEngine} from '../clients/docker.ts';
import {oneImage, pushedTag, type ToolPush} from './push.ts';

/** Docker Engine, which pushes its own platform of an image. */
export const docker: ToolPush = {
  name: 'Docker Engine, push',
  tools: ['dockerd', 'docker'],
  overlay: 'allow',
  async push(target) {
    const docker = await startEngine(target.scope, target.tools);
    const name = pushedTag(target);
    await docker('pull', '--quiet', target.source);
    await docker('tag', target.source, name);
    const printed = await docker('push', name);
    const digest = /digest: (sha256:[0-9a-f]{64})/.exec(printed)?.[1];
    if (!digest) throw new Error(`docker push did not print a digest: ${printed}`);
    const [{Id: id}] = JSON.parse(await docker('image', 'inspect', name));
    return oneImage(target, digest, async (where) => {
      const other = await startEngine(where.scope, where.tools);
      await other('pull', '--quiet', pushedTag(where));
      const [found] = JSON.parse(await other('image', 'inspect', pushedTag(where)));
      expectAll(
        'the repository digests',
        [`${where.host}/${where.image.repository}@${digest}`],
        found.RepoDigests,
      );
      expectSame('the image', [id], [found.Id]);
    });
  },
};
