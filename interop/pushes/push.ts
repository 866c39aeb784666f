import {buildImage} from '../../rig/image.ts';
import type {Tool} from '../../rig/tools.ts';
import type {Find, Place} from '../attachments/attachment.ts';
import type {Client} from '../clients/client.ts';

/** What the tools push that push a whole image. */
export const OURS = buildImage('source/ours', '2', 'oci');

/** A repository that has an image already, and that something is pushed into. */
export interface Target extends Place {
  /** Where `OURS` lies, for tools that copy: `host:port/name:tag` of a registry that nothing here stands before. */
  source: string;
}

/** A way in which a tool pushes. */
export interface Push {
  /** As the table names it. */
  name: string;
  /** What it needs; the first one's version stands in the table. */
  tools: readonly [Tool, ...Tool[]];
  /** What `overlay.tags` must be where it is laid over an upstream: `deny` for what belongs to an image. */
  overlay: 'deny' | 'allow';
  /** Pushes into the repository of the target, whose scope outlives every look. @throws Error when it is refused. */
  push(target: Target): Promise<Pushed>;
}

/** What is there after a push. */
export interface Pushed {
  /** Manifests that can be pulled now. */
  manifests: readonly {repository: string; reference: string; digest?: string}[];
  /** How many referrers this digest has now. */
  attached: {subject: string; count: number};
  /** Pulls it, or looks for it, with the tool that pushed. */
  find: Find;
  /** The same where the upstream itself must be asked in another way. */
  findDirectly?: Find;
}

/** The tag that whole images are pushed under, beside the one that is there. */
export const pushedTag = ({host, image}: Place): string => `${host}/${image.repository}:${OURS.tag}`;

/** One image pushed under that tag, with nothing attached. */
export const oneImage = ({image}: Place, digest: string, find: Find): Pushed => ({
  manifests: [{repository: image.repository, reference: OURS.tag, digest}],
  attached: {subject: digest, count: 0},
  find,
});

/** Pulls `OURS` with a client that compares every byte. */
export const pulledBy =
  (client: Client): Find =>
  ({scope, tools, host, image: {repository}}) =>
    client.pull({scope, tools, host, images: [{...OURS, repository}]});
