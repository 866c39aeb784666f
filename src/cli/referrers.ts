import {resolveSubject} from '../artifact/list.ts';
import {platformsOf} from '../artifact/platforms.ts';
import {ArtifactError, type ArtifactTarget, type TargetManifest} from '../artifact/target.ts';
import {treeOf} from '../artifact/tree.ts';
import {systemClock} from '../clock.ts';
import {openTarget} from '../library.ts';
import {parseReference} from '../oci/name.ts';
import {isPlatform, type PlatformManifest} from '../oci/platform.ts';
import {explain, parseArtifactReference, registryAccess} from './artifact-reference.ts';
import {drawTree, type SubjectTree} from './draw-tree.ts';
import {type CommandIo, failed, misused} from './report.ts';

export interface ReferrersFlags {
  artifactType?: readonly string[];
  platform?: string;
  allPlatforms?: boolean;
  /** `tree` or `json`; older than `json`. */
  format?: string;
  json?: boolean;
  plainHttp?: boolean;
}

const FORMATS = ['tree', 'json'];

/** @returns what is wrong with the flags, else undefined. */
function faultOf({format, platform, allPlatforms}: ReferrersFlags): string | undefined {
  if (format !== undefined && !FORMATS.includes(format))
    return `--format "${format}" is not known: write tree or json.`;
  if (platform !== undefined && allPlatforms) return 'Write either --platform or --all-platforms.';
  if (platform !== undefined && !/^[^/]+\/[^/]+(\/[^/]+)?$/.test(platform)) {
    return `--platform "${platform}" is not of the form os/architecture, such as linux/arm64.`;
  }
  return undefined;
}

function wantedPlatforms(
  manifest: TargetManifest | undefined,
  {platform, allPlatforms}: ReferrersFlags,
  name: string,
): PlatformManifest[] {
  if (platform === undefined && !allPlatforms) return [];
  if (!manifest) throw new ArtifactError(`${name} has no such manifest, so its platforms are not known.`);
  const all = platformsOf(manifest.bytes);
  if (all.length === 0)
    throw new ArtifactError(`${manifest.digest} is not an image index: it has no platforms.`);
  if (platform === undefined) return all;
  const found = all.filter((one) => isPlatform(one.platform, platform));
  if (found.length > 0) return found;
  const known = new Set(all.map((one) => one.platform ?? 'none'));
  throw new ArtifactError(
    `${manifest.digest} has no manifest for ${platform}; it has manifests for ${[...known].join(', ')}.`,
  );
}

/** The subject's own referrers, unless one platform is selected, then those of each selected platform. */
async function sectionsOf(
  target: ArtifactTarget,
  text: string,
  flags: ReferrersFlags,
): Promise<SubjectTree[]> {
  const reference = parseReference(text);
  const manifest = await target.manifest(reference);
  const digest = manifest?.digest ?? (await resolveSubject(target, reference));
  const platforms = wantedPlatforms(manifest, flags, target.name);
  const types = flags.artifactType;
  const sections: SubjectTree[] = [];
  if (flags.platform === undefined) {
    const {mediaType} = manifest ?? {mediaType: undefined};
    sections.push({digest, mediaType, platform: undefined, referrers: await treeOf(target, digest, types)});
  }
  for (const child of platforms) {
    const {mediaType, platform} = child;
    const referrers = await treeOf(target, child.digest, types);
    sections.push({digest: child.digest, mediaType, platform: platform ?? 'no platform', referrers});
  }
  return sections;
}

/**
 * `backref referrers`: shows what refers to a manifest, what refers to that, and so on.
 * @returns the exit code: 0 when they are known, even if there are none; 1 when not; 2 for wrong arguments.
 */
export async function referrers(text: string, flags: ReferrersFlags, io: CommandIo): Promise<number> {
  const json = flags.json === true || flags.format === 'json';
  const reference = parseArtifactReference(text);
  if (typeof reference === 'string') return misused(reference, {json}, io);
  const fault = faultOf(flags);
  if (fault !== undefined) return misused(fault, {json}, io);
  try {
    await using target = await open(reference.target, flags, io);
    const sections = await sectionsOf(target, reference.reference, flags);
    io.stdout.write(
      json
        ? `${JSON.stringify({reference: text, subjects: sections}, undefined, 2)}\n`
        : drawTree(target.name, sections, systemClock.now()),
    );
    return 0;
  } catch (error) {
    return failed(explain(error, io.env), {json}, io);
  }
}

async function open(
  target: string,
  flags: ReferrersFlags,
  {env}: CommandIo,
): Promise<ArtifactTarget & AsyncDisposable> {
  const result = await openTarget(target, await registryAccess(target, flags, env));
  return {...result, [Symbol.asyncDispose]: result.close};
}
