import type {Attachment} from '../attachments/attachment.ts';
import {cosignBundle, cosignTag} from '../attachments/cosign.ts';
import {notation as notationSigning} from '../attachments/notation.ts';
import type {PushTarget, ToolPush} from './push.ts';

/** cosign, whose old signatures are images without a subject, under a tag that names the signed digest. */
export const cosign: readonly ToolPush[] = [
  referring(cosignBundle),
  {
    name: cosignTag.name,
    tools: cosignTag.tools,
    overlay: 'deny',
    async push(target) {
      const find = await cosignTag.attach(target);
      const {digest} = target.image.index;
      const reference = `${digest.replace(':', '-')}.sig`;
      return {
        manifests: [{repository: target.image.repository, reference}],
        attached: {subject: digest, count: 0},
        find,
      };
    },
  },
];

export const notation: ToolPush = referring(notationSigning);

/** A tool whose signature refers to the image. */
function referring({name, tools, attach}: Attachment): ToolPush {
  return {
    name,
    tools,
    overlay: 'deny',
    push: async (target: PushTarget) => ({
      manifests: [],
      attached: {subject: target.image.index.digest, count: 1},
      find: await attach(target),
    }),
  };
}
