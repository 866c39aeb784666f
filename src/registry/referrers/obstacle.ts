import {DiskFull} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';

/** Why the list could not be renewed. */
export interface Obstacle {
  kind: string;
  reason: string;
}

/** @returns undefined for a failure after which no stale list may be served */
export function obstacleIn(error: unknown): Obstacle | undefined {
  if (error instanceof DiskFull) return {kind: 'no-room', reason: 'there is no room to keep a newer list'};
  if (!(error instanceof UpstreamFailure) || error.kind === 'denied') return undefined;
  return {kind: error.kind, reason: error.message};
}
