import {type Descriptor, readDescriptor} from '../oci/descriptor.ts';

/** A manifest of an index, with the platform that it is for: `linux/arm64/v8`; undefined where none is named. */
export interface PlatformManifest extends Descriptor {
  platform: string | undefined;
}

/** The manifests of an index or list in their order; empty for what is none. */
export function platformsOf(bytes: Buffer): PlatformManifest[] {
  const {manifests} = JSON.parse(bytes.toString('utf8'));
  if (!Array.isArray(manifests)) return [];
  return manifests.flatMap((entry) => {
    const descriptor = readDescriptor(entry);
    return descriptor ? [{...descriptor, platform: nameOf(entry.platform)}] : [];
  });
}

function nameOf(platform: unknown): string | undefined {
  if (typeof platform !== 'object' || platform === null) return undefined;
  const {os, architecture, variant} = platform as Record<string, unknown>;
  if (typeof os !== 'string' || typeof architecture !== 'string') return undefined;
  return typeof variant === 'string' && variant !== ''
    ? `${os}/${architecture}/${variant}`
    : `${os}/${architecture}`;
}

/** 64-bit ARM has one variant in use, which may be left out (image-spec, "Platform Variants"). */
const plain = (platform: string): string => platform.replace(/\/arm64\/v8$/, '/arm64');

/** Does a manifest's platform answer to the wanted one? A wanted platform without a variant means each of its variants. */
export const isPlatform = (platform: string | undefined, wanted: string): boolean =>
  platform !== undefined &&
  (plain(platform) === plain(wanted) || plain(platform).startsWith(`${plain(wanted)}/`));
