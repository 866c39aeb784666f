import {cleanEnvironment} from '../clients/client.ts';
import {skopeo as puller} from '../clients/copiers.ts';
import {OURS, oneImage, pulledBy, pushedTag, type ToolPush} from './push.ts';

/** skopeo, which copies a whole index from one registry to another. */
export const skopeo: ToolPush = {
  name: 'skopeo, copy',
  tools: ['skopeo'],
  overlay: 'allow',
  async push(target) {
    const {scope, tools, source} = target;
    const insecure = ['--src-tls-verify=false', '--dest-tls-verify=false'];
    const copy = ['--insecure-policy', 'copy', '--all', '--preserve-digests', ...insecure];
    const args = [...copy, `docker://${source}`, `docker://${pushedTag(target)}`];
    await scope.run(tools.path('skopeo'), args, {env: cleanEnvironment(scope)});
    return oneImage(target, OURS.index.digest, pulledBy(puller));
  },
};
