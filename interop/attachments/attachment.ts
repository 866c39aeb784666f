import type {Image} from '../../rig/image.ts';
import type {Scope} from '../../rig/scope.ts';
import type {Tool, Toolbox} from '../../rig/tools.ts';

/** Where an image lies: in a registry, or behind a proxy before it. */
export interface Place {
  /** For what the tool writes here; nothing of an earlier look is in it. */
  scope: Scope;
  tools: Toolbox;
  /** `127.0.0.1:port` of the registry or the proxy. */
  host: string;
  image: Image;
}

/** Looks for what was attached. @throws Error when it is not found, or anything else is. */
export type Find = (place: Place) => Promise<void>;

/** A way in which a tool attaches something to an image, and looks for it. */
export interface Attachment {
  /** As the table names it. */
  name: string;
  /** What it needs; the first one's version stands in the table. */
  tools: readonly [Tool, ...Tool[]];
  /** What it must not find, and why; everything else it must. */
  limits: readonly Limit[];
  /** Attaches to the image of this place, whose scope outlives every look. @throws Error when it is refused. */
  attach(place: Place): Promise<Find>;
}

/** In the order in which they are run and shown. */
export const LOOKS = [
  'directly',
  'through backref',
  'again, upstream stopped',
  'image pulled, stopped',
  'the same with prefetch: all',
] as const;
export type Look = (typeof LOOKS)[number];

/** A look that finds nothing, by the nature of the tool or of the upstream. */
export interface Limit {
  look: Look;
  /** Only before this upstream. */
  upstream?: string;
  /** As the table says it. */
  because: string;
  /** What the tool must say then: what cannot be had in an outage is an error and never an absence. */
  says?: RegExp;
}

/** What the tools are told to attach and to look for. */
export const reference = ({host, image}: Pick<Place, 'host' | 'image'>): string =>
  `${host}/${image.repository}@${image.index.digest}`;
