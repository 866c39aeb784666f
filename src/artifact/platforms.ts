import {type PlatformManifest, platformManifests} from '../oci/platform.ts';
import {ArtifactError} from './target.ts';

/** More than any real index has. The registry is asked about each of them. */
const MAX_PLATFORMS = 1000;

/**
 * The manifests of an index or list, as `platformManifests` gives them.
 * @throws ArtifactError for an index of more than 1000
 */
export function platformsOf(bytes: Buffer): PlatformManifest[] {
  const found = platformManifests(bytes);
  if (found.length > MAX_PLATFORMS) {
    throw new ArtifactError(
      `The index names ${found.length} manifests; at most ${MAX_PLATFORMS} are looked at.`,
    );
  }
  return found;
}
