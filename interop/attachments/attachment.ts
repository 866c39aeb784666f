import type {Image} from '../../rig/image.ts';
import type {Scope} from '../../rig/scope.ts';
import type {Tool, Toolbox} from '../../rig/tools.ts';

/** The location of an image: in a registry, or behind a proxy. */
export interface Place {
  /** For the tool's files; contains nothing from an earlier look. */
  scope: Scope;
  tools: Toolbox;
  /** `127.0.0.1:port` of the registry or the proxy. */
  host: string;
  image: Image;
}

/** Looks for the attached artifact. @throws Error when it, or not only it, is found. */
export type Find = (place: Place) => Promise<void>;

/** One way in which a tool attaches something to an image, and looks for it. */
export interface Attachment {
  /** Its name in the table. */
  name: string;
  /** The tools that it needs; the first one's version is shown in the table. */
  tools: readonly [Tool, ...Tool[]];
  /** The looks that must find nothing, and why; all others must find it. */
  limits: readonly KnownLimit[];
  /** Attaches to the image of this place, whose scope outlives all looks. @throws Error when it is refused. */
  attach(place: Place): Promise<Find>;
}

/** In the order of running and showing. */
export const LOOKS = [
  'directly',
  'through backref',
  'again, upstream stopped',
  'image pulled, stopped',
  'the same with prefetch: all',
] as const;
export type Look = (typeof LOOKS)[number];

/** A look that cannot find anything, because of how the tool or the upstream works. */
export interface KnownLimit {
  look: Look;
  /** Only with this upstream. */
  upstream?: string;
  /** The text in the table. */
  because: string;
  /** What the tool must print: during an outage, something unavailable is an error and never "not found". */
  says?: RegExp;
}

/** What the tools attach and look for. */
export const reference = ({host, image}: Pick<Place, 'host' | 'image'>): string =>
  `${host}/${image.repository}@${image.index.digest}`;
