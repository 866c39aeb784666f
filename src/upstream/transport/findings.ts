import {UpstreamFailure} from '../port.ts';
import type {Finding} from './breaker.ts';
import type {Reply} from './request.ts';

/** What one question shows of the upstream's host, and of the repository that was asked about. */
export interface Findings {
  host: Finding;
  repository: Finding;
}

/** Server errors that are answers: not implemented, and a loop. */
const SOUND: ReadonlySet<number> = new Set([501, 508]);
/** What a gateway answers when nothing behind it does; any other 5xx is about what was asked for. */
const GATEWAY: ReadonlySet<number> = new Set([502, 503, 504]);
const NOTHING: Findings = {host: 'unknown', repository: 'unknown'};
const REACHABLE: Findings = {host: 'reachable', repository: 'reachable'};

/** @param host the upstream's; an answer from where it redirects to shows that it is there itself. */
export function findingsOfReply({status, url}: Pick<Reply, 'status' | 'url'>, host: string): Findings {
  if (status < 500 || SOUND.has(status)) return REACHABLE;
  const isGateway = GATEWAY.has(status) && url.host === host;
  return {host: isGateway ? 'failing' : 'reachable', repository: 'failing'};
}

/** @param error what a question ended with instead of an answer. */
export function findingsOfError(error: unknown, host: string): Findings {
  if (!(error instanceof UpstreamFailure)) return NOTHING;
  const isHost = error.host === host;
  switch (error.kind) {
    // Nothing may have been asked at all.
    case 'credentials':
    case 'throttled':
      return NOTHING;
    case 'unreachable':
      return isHost ? {host: 'failing', repository: 'unknown'} : {host: 'reachable', repository: 'failing'};
    case 'timeout':
      return {host: isHost ? 'failing' : 'reachable', repository: 'failing'};
    // The token service may fail for one scope alone, and no question to the upstream itself shows how it is.
    case 'token':
      return {host: 'unknown', repository: 'failing'};
    default:
      return REACHABLE;
  }
}
