import {createFallbackEntries, type FallbackEntriesParts} from '../fallback-tag/follow.ts';
import type {Push} from './push.ts';
import {createThroughManifests, type ThroughManifestsParts} from './through-manifests.ts';
import {createThroughUploads, type ThroughUploadsParts} from './through-uploads.ts';

export type ThroughPushParts = Omit<ThroughManifestsParts, 'entries'> &
  ThroughUploadsParts &
  FallbackEntriesParts;

/**
 * Mode `push: through`: everything is written to the upstream with the registry's credentials, its refusals are the
 * client's to hear, and what passed is here for the next pull.
 */
export const createThroughPush = (parts: ThroughPushParts): Push => ({
  ...createThroughUploads(parts),
  ...createThroughManifests({...parts, entries: createFallbackEntries(parts)}),
});
