import {buildImage} from '../../rig/image.ts';
import type {Tool} from '../../rig/tools.ts';
import type {Find, Place} from '../attachments/attachment.ts';
import type {Client} from '../clients/client.ts';

/** The image that tools push which push a whole image. */
export const OURS = buildImage('source/ours', '2', 'oci');

/** A repository that has an image, and into which something is pushed. */
export interface PushTarget extends Place {
  /** The source of `OURS` for tools that copy: `host:port/name:tag` of a registry without a proxy. */
  source: string;
}

/** One way in which a tool pushes. */
export interface ToolPush {
  /** Its name in the table. */
  name: string;
  /** The tools that it needs; the first one's version is shown in the table. */
  tools: readonly [Tool, ...Tool[]];
  /** The value of `overlay.tags` that it needs in front of an upstream: `deny` for what belongs to an image. */
  overlay: 'deny' | 'allow';
  /** Pushes into the repository of the target, whose scope outlives all looks. @throws Error when it is refused. */
  push(target: PushTarget): Promise<PushedContent>;
}

/** The content after a push. */
export interface PushedContent {
  /** Manifests that can be pulled. */
  manifests: readonly {repository: string; reference: string; digest?: string}[];
  /** The number of referrers that this digest has. */
  attached: {subject: string; count: number};
  /** Pulls it, or looks for it, with the tool that pushed it. */
  find: Find;
  /** The same for the upstream itself, when that needs another way. */
  findDirectly?: Find;
}

/** The tag for pushed images, beside the existing one. */
export const pushedTag = ({host, image}: Place): string => `${host}/${image.repository}:${OURS.tag}`;

/** One image pushed under that tag, with nothing attached. */
export const oneImage = ({image}: Place, digest: string, find: Find): PushedContent => ({
  manifests: [{repository: image.repository, reference: OURS.tag, digest}],
  attached: {subject: digest, count: 0},
  find,
});

/** Pulls `OURS` with a client that compares every byte. */
export const pulledBy =
  (client: Client): Find =>
  ({scope, tools, host, image: {repository}}) =>
    client.pull({scope, tools, host, images: [{...OURS, repository}]});
