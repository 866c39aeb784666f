import type {EventMap, RequestKind} from '../events.ts';
import {describeError} from './scrub.ts';

export type Level = 'debug' | 'info' | 'warn' | 'error';
type Line = [level: Level, text: string];

const seconds = (ms: number | undefined): string =>
  ms === undefined ? '' : ` for ${Math.ceil(ms / 1000)} s`;

/** Asked for so often, and by machines, that they are of interest only when they fail. */
const ROUTINE: ReadonlySet<RequestKind> = new Set(['ping', 'metrics', 'probe']);

function requestLevel({kind, outcome}: EventMap['request.end'][0]): Level {
  if (outcome === 'failed' || outcome === 'stale') return 'warn';
  return ROUTINE.has(kind) && outcome === 'done' ? 'debug' : 'info';
}

function requestText(event: EventMap['request.end'][0]): string {
  const {method, url, status, outcome, reason, ms, received, bytes, cache, client, userAgent} = event;
  const parts = [
    `${method} ${url} ${status}`,
    outcome === 'aborted' ? 'aborted by its client' : '',
    received > 0 ? `${received} B in,` : '',
    `${bytes} B ${Math.round(ms)} ms`,
    cache ?? '',
    client ?? '',
    userAgent === undefined ? '' : `"${userAgent}"`,
  ];
  const text = parts.filter((part) => part !== '').join(' ');
  return reason === undefined ? text : `${text}: ${reason}`;
}

/** How each event reads in the log, and how much it matters. */
export const LINES: {[Name in keyof EventMap]: (event: EventMap[Name][0]) => Line} = {
  'request.start': ({method, url}) => ['debug', `${method} ${url} begins`],
  'request.end': (event) => [requestLevel(event), requestText(event)],
  'request.fault': ({error}) => ['error', `unexpected fault: ${describeError(error)}`],
  'server.fault': ({origin, error}) => [
    'error',
    `unhandled ${origin === 'promise' ? 'rejection' : 'exception'}, please report it: ${describeError(error)}`,
  ],
  'client.stalled': ({address, ms}) => [
    'info',
    `disconnected ${address ?? 'a client'}: it took no byte of its response${seconds(ms)} (listen.sendTimeout)`,
  ],
  'listener.failed': ({error}) => [
    'error',
    `cannot accept connections: ${error.message}; if too many files are open, raise the limit of open files (ulimit -n)`,
  ],
  'manifest.served': ({registry, repository, outcome}) => [
    'debug',
    `manifest of ${registry}/${repository}: ${outcome}`,
  ],
  'blob.served': ({registry, repository, digest, outcome}) => [
    'debug',
    `blob ${digest} of ${registry}/${repository}: ${outcome}`,
  ],
  'referrers.served': ({registry, repository, outcome}) => [
    'debug',
    `referrers of ${registry}/${repository}: ${outcome}`,
  ],
  'referrers.capability': ({registry, repository, host, capability}) => [
    'info',
    `${host}: Referrers API ${capability} for ${registry}/${repository}`,
  ],
  'referrers.tag-owed': ({changes}) => ['debug', `changes owed to upstreams' fallback tags: ${changes}`],
  'referrers.tag-written': ({registry, name, subject, changes}) => [
    'debug',
    `fallback tag of ${registry}/${name}@${subject} written, ${changes} ${changes === 1 ? 'change' : 'changes'}`,
  ],
  'referrers.tag-failed': ({registry, name, subject, reason}) => [
    'warn',
    `could not update the fallback tag of ${registry}/${name}@${subject}, will try again: ${reason}`,
  ],
  'referrers.tag-unusable': ({registry, name, host, tag, what}) => [
    'warn',
    `${host}: the tag ${tag} of ${registry}/${name}, which would list referrers, means ${what}; it is left as it is, and what was attached is found only here until that tag is removed or the upstream has a Referrers API`,
  ],
  'referrers.crowded': ({registry, repository, subject, artifactType, atLeast}) => [
    'warn',
    `${registry}/${repository}@${subject} has ${atLeast} referrers of type ${artifactType === '' ? '(none)' : artifactType.slice(0, 255)} or more; admission controllers refuse more than 50: set registries.${registry}.referrers.keep`,
  ],
  'blob.damaged': ({digest}) => [
    'error',
    `the stored bytes of ${digest} are damaged: check the disk; they are not served, and the next pull or push replaces them`,
  ],
  // How a download went that clients waited for is told by the lines of their requests.
  'fill.start': ({digest, resumedAt}) => [
    'debug',
    `downloading ${digest}${resumedAt > 0 ? ` from byte ${resumedAt} on` : ''}`,
  ],
  'fill.resume': ({digest, at, reason}) => ['debug', `resuming ${digest} at byte ${at}: ${reason}`],
  'fill.interrupted': ({digest, at}) => [
    'info',
    `paused the download of ${digest} at byte ${at}: nobody waits for it, and others wait for its connection`,
  ],
  'fill.done': ({digest, size, ms}) => ['info', `stored ${digest}, ${size} B in ${Math.round(ms)} ms`],
  'fill.failed': ({digest, reason}) => ['debug', `could not download ${digest}: ${reason}`],
  'fill.mismatch': ({digest, reason}) => ['error', `threw away what came for ${digest}: ${reason}`],
  'upstream.request': ({host, method, path, status, ms}) => [
    'debug',
    `${host}: ${method} ${path} ${status} ${Math.round(ms)} ms`,
  ],
  // The line of the request that caused the question says the same.
  'upstream.failed': ({host, kind, reason}) => ['debug', `${host}: ${kind}: ${reason}`],
  'upstream.refused': ({reason}) => ['debug', reason],
  'upstream.throttled': ({host, reason, retryAfter}) => [
    'warn',
    `${reason}${retryAfter === undefined ? '' : `; ${host} is not asked${seconds(retryAfter)}`}`,
  ],
  'upstream.quota': ({host, limit, remaining}) => ['debug', `${host}: ${remaining} of ${limit} pulls left`],
  'upstream.circuit': ({host, repository, state}) => [
    state === 'open' ? 'warn' : 'info',
    state === 'open'
      ? `${repository === undefined ? host : `${host}: ${repository}`} fails and is left alone for a while`
      : `${host}: circuit${repository === undefined ? '' : ` of ${repository}`} ${state}`,
  ],
  'upstream.credentials-refused': ({host, reason}) => [
    'error',
    `${host} refuses our credentials: ${reason}; check upstream.credentials of its registry`,
  ],
  'garbage.collected': ({pieces, bytes}) => [
    pieces > 0 ? 'info' : 'debug',
    `collected ${pieces} pieces of content that nothing refers to, ${bytes} B`,
  ],
  'background.failed': ({task, error}) => ['error', `${task} failed: ${describeError(error)}`],
};
