import {createReady} from './registry/maintenance/ready.ts';
import {createWarm, type WarmParts} from './registry/maintenance/warm.ts';
import type {Storage} from './storage/open.ts';

interface OutageParts extends Omit<WarmParts, 'metadata'> {
  storage: Storage;
}

export type WiredOutage = ReturnType<typeof wireOutage>;

/** What gets images ready for an outage of their upstreams: a part of `wire`. */
export function wireOutage({storage: {metadata}, ...others}: OutageParts) {
  const parts = {metadata, ...others};
  return {ready: createReady(parts), warm: createWarm(parts)};
}
