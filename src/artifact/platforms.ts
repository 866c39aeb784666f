import {type Descriptor, readDescriptor} from '../oci/descriptor.ts';
import {manifestBody} from '../oci/manifest.ts';
import {ArtifactError} from './target.ts';

/** A manifest of an index, with its platform, such as `linux/arm64/v8`; undefined where the index does not name one. */
export interface PlatformManifest extends Descriptor {
  platform: string | undefined;
}

/** More than any real index has. The registry is asked about each of them. */
const MAX_PLATFORMS = 1000;

/**
 * The manifests of an index or list in their order, each once per platform; empty for anything else.
 * @throws ArtifactError for an index of more than 1000
 */
export function platformsOf(bytes: Buffer): PlatformManifest[] {
  const manifests = manifestBody(bytes)?.manifests;
  if (!Array.isArray(manifests)) return [];
  const found = new Map<string, PlatformManifest>();
  for (const entry of manifests) {
    const descriptor = readDescriptor(entry);
    if (!descriptor) continue;
    const platform = nameOf(entry.platform);
    const key = `${descriptor.digest} ${platform}`;
    if (!found.has(key)) found.set(key, {...descriptor, platform});
  }
  if (found.size > MAX_PLATFORMS) {
    throw new ArtifactError(
      `The index names ${found.size} manifests; at most ${MAX_PLATFORMS} are looked at.`,
    );
  }
  return [...found.values()];
}

function nameOf(platform: unknown): string | undefined {
  if (typeof platform !== 'object' || platform === null) return undefined;
  const {os, architecture, variant} = platform as Record<string, unknown>;
  if (typeof os !== 'string' || typeof architecture !== 'string') return undefined;
  return typeof variant === 'string' && variant !== ''
    ? `${os}/${architecture}/${variant}`
    : `${os}/${architecture}`;
}

/** Only one variant of 64-bit ARM is in use, and it may be left out (image-spec, "Platform Variants"). */
const plain = (platform: string): string => platform.replace(/\/arm64\/v8$/, '/arm64');

/** Whether a manifest's platform is the wanted one. A wanted platform without a variant means all of its variants. */
export const isPlatform = (platform: string | undefined, wanted: string): boolean =>
  platform !== undefined &&
  (plain(platform) === plain(wanted) || plain(platform).startsWith(`${plain(wanted)}/`));
