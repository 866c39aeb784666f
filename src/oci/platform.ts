import {type Descriptor, readDescriptor} from './descriptor.ts';
import {isRecord} from './json.ts';
import {manifestBody} from './manifest.ts';

/** A manifest of an index, with its platform, such as `linux/arm64/v8`; undefined where the index does not name one. */
export interface PlatformManifest extends Descriptor {
  platform: string | undefined;
}

/** The manifests of an index or list in their order, each once per platform; empty for anything else. */
export function platformManifests(bytes: Uint8Array): PlatformManifest[] {
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
  return [...found.values()];
}

function nameOf(platform: unknown): string | undefined {
  if (!isRecord(platform)) return undefined;
  const {os, architecture, variant} = platform;
  if (typeof os !== 'string' || typeof architecture !== 'string') return undefined;
  return typeof variant === 'string' && variant !== ''
    ? `${os}/${architecture}/${variant}`
    : `${os}/${architecture}`;
}

const PLATFORM = /^[a-z0-9_.-]+\/[a-z0-9_.-]+(?:\/[a-z0-9_.-]+)?$/i;

/** Whether it is a platform as people write it: `os/arch` or `os/arch/variant`. */
export const isPlatformName = (text: string): boolean => PLATFORM.test(text);

/** Only one variant of 64-bit ARM is in use, and it may be left out (image-spec, "Platform Variants"). */
const plain = (platform: string): string => platform.replace(/\/arm64\/v8$/, '/arm64');

/** Whether a manifest's platform is the wanted one. A wanted platform without a variant means all of its variants. */
export const isPlatform = (platform: string | undefined, wanted: string): boolean =>
  platform !== undefined &&
  (plain(platform) === plain(wanted) || plain(platform).startsWith(`${plain(wanted)}/`));
