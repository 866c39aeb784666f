import type {EventMap, LoggedEvent, RequestKind} from '../events.ts';

export type Level = 'debug' | 'info' | 'warn' | 'error';
/** A text that is long to write is written only where its level is logged. */
type Line = [level: Level, text: string | (() => string)];

const seconds = (ms: number | undefined): string =>
  ms === undefined ? '' : ` for ${Math.ceil(ms / 1000)} s`;

const dateOf = (ms: number): string => new Date(ms).toISOString();

/** Machines send these all the time; they are of interest only when they fail. */
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

function evictionText(
  {probation, value, unrooted, damaged, removed}: EventMap['cache.evicted'][0]['counts'],
  bytes: number,
  youngest: number | undefined,
): string {
  const parts = [
    `${probation} images that were rarely used`,
    `${value} that were worth least`,
    unrooted > 0 ? `${unrooted} blobs of no image` : '',
    damaged > 0 ? 'damaged copies' : '',
    removed > 0 ? `${removed} images that an operator named` : '',
  ].filter((part) => part !== '' && !part.startsWith('0 '));
  const age = youngest === undefined ? '' : `; the last use of any of them was${seconds(youngest)} ago`;
  return `evicted ${parts.join(', ')}, ${bytes} B${age.replace(' for ', ' ')}`;
}

function checkLine({blobs, isComplete, ...found}: EventMap['store.checked'][0]): Line {
  const {copies, local, deletions, unrecorded, spoolBytes} = found;
  const parts = [
    copies > 0 ? `lost copies, which the next pulls fetch again: ${copies}` : '',
    local > 0 ? `lost blobs that were pushed here: ${local}` : '',
    deletions > 0 ? `deletions, which were ended: ${deletions}` : '',
    unrecorded > 0 ? `files without a row, which garbage collection removes: ${unrecorded}` : '',
    spoolBytes > 0 ? `partial downloads and uploads: ${spoolBytes} B` : '',
  ].filter((part) => part !== '');
  const end = isComplete
    ? ''
    : '. The time was over before everything was looked at: the scrub does the rest';
  const text = `checked ${blobs} blobs after the start, looking for what a crash left: ${parts.join('; ') || 'nothing'}${end}`;
  if (copies + local > 0) return ['warn', text];
  return [parts.length > 0 || !isComplete ? 'info' : 'debug', text];
}

/** The level and the text of each event. */
export const LINES: {[Name in LoggedEvent]: (event: EventMap[Name][0]) => Line} = {
  'request.start': ({method, url}) => ['debug', () => `${method} ${url} started`],
  'request.end': (event) => [requestLevel(event), () => requestText(event)],
  'request.fault': ({error}) => ['error', `unexpected error, please report it: ${describeError(error)}`],
  'worker.ended': ({reason, ms}) => [
    'error',
    `a worker ended, with the connections that it had, please report it: ${reason}; another one starts in ${ms / 1000} s`,
  ],
  'workers.started': ({count}) => [
    'info',
    `workers: ${count} threads answer requests now, because one was busy`,
  ],
  'workers.unavailable': ({count}) => [
    'warn',
    `workers: ${count} cannot share a port on this system: one thread answers all requests`,
  ],
  'server.fault': ({origin, error}) => [
    'error',
    `unhandled ${origin === 'promise' ? 'rejection' : 'exception'}, please report it: ${describeError(error)}`,
  ],
  'access.denied': ({mode, reason}) =>
    mode === 'audit' ? ['warn', `would be denied: ${reason}`] : ['info', `denied: ${reason}`],
  'client.stalled': ({address, ms}) => [
    'info',
    `disconnected ${address ?? 'a client'}: it read nothing of its response${seconds(ms)} (listen.sendTimeout)`,
  ],
  'limit.exceeded': ({limit, client}) => ['debug', `refused ${client ?? 'a client'} by ${limit}`],
  'limit.reached': ({reason}) => ['warn', `refusing clients: ${reason}`],
  'login.accepted': ({method}) => ['debug', `accepted a login (${method})`],
  'login.refused': ({method, reason, client}) => [
    'info',
    `refused a login (${method}) of ${client ?? 'a client'}: ${reason}`,
  ],
  'login.users-rejected': ({path, reason}) => [
    'error',
    `kept the users that were read before, as ${path} cannot be used: ${reason}`,
  ],
  'listener.failed': ({error}) => [
    'error',
    `cannot accept connections: ${error.message}; if too many files are open, raise the limit (ulimit -n)`,
  ],
  'certificate.loaded': ({listener, path, expiresAt}) => [
    'info',
    `${listener} uses the certificate in ${path}, which expires on ${dateOf(expiresAt)}`,
  ],
  'certificate.rejected': ({listener, path, problem}) => [
    'error',
    `${listener} keeps the certificate that it has: the file ${path} ${problem}`,
  ],
  'certificate.expired': ({listener, path, expiresAt}) => [
    'warn',
    `${listener} uses a certificate that expired on ${dateOf(expiresAt)}, which clients refuse: replace ${path}`,
  ],
  'client.handshake-failed': ({address, reason}) => [
    'debug',
    `TLS with ${address ?? 'a client'} failed: ${reason}`,
  ],
  'manifest.served': ({registry, repository, outcome}) => [
    'debug',
    () => `served a manifest of ${registry}/${repository}: ${outcome}`,
  ],
  'blob.served': ({registry, repository, digest, outcome}) => [
    'debug',
    () => `served blob ${digest} of ${registry}/${repository}: ${outcome}`,
  ],
  'referrers.served': ({registry, repository, outcome}) => [
    'debug',
    () => `served referrers of ${registry}/${repository}: ${outcome}`,
  ],
  'referrers.capability': ({registry, repository, host, capability}) => [
    'info',
    `${host}: Referrers API ${capability} for ${registry}/${repository}`,
  ],
  'referrers.tag-pending': ({changes}) => [
    'debug',
    `changes not yet written to upstreams' fallback tags: ${changes}`,
  ],
  'referrers.tag-written': ({registry, name, subject, changes}) => [
    'debug',
    `wrote ${changes} ${changes === 1 ? 'change' : 'changes'} to the fallback tag of ${registry}/${name}@${subject}`,
  ],
  'referrers.tag-failed': ({registry, name, subject, reason}) => [
    'warn',
    `could not update the fallback tag of ${registry}/${name}@${subject} and will retry: ${reason}`,
  ],
  'referrers.tag-unusable': ({registry, name, host, tag, what}) => [
    'warn',
    `${host}: the fallback tag ${tag} of ${registry}/${name} is ${what}, not a list of referrers; it is not overwritten, and new referrers are listed only here until the tag is removed or the upstream has a Referrers API`,
  ],
  'referrers.crowded': ({registry, repository, subject, artifactType, atLeast}) => [
    'warn',
    `${registry}/${repository}@${subject} has at least ${atLeast} referrers of type ${artifactType === '' ? '(none)' : artifactType.slice(0, 255)}; admission controllers refuse more than 50: set registries.${registry}.referrers.keep`,
  ],
  'blob.damaged': ({digest, origin, problem}) =>
    origin === 'local'
      ? [
          'error',
          `the pushed blob ${digest} is ${problem}: check the disk. It is not served until it is pushed again or restored from a backup`,
        ]
      : [
          'warn',
          `the stored copy of ${digest} is ${problem}: check the disk. The next pull fetches it again`,
        ],
  'manifest.damaged': ({registry, repository, digest, origin}) => [
    origin === 'local' ? 'error' : 'warn',
    `the stored manifest ${registry}/${repository}@${digest} is damaged: check the disk. It is not served, and the next ${origin === 'local' ? 'push' : 'pull'} replaces it`,
  ],
  'images.checked': ({verifies, pulls, incomplete}) => [
    'debug',
    `pinned images: ${incomplete} would not pull with their upstreams gone, ${pulls} would pull, ${verifies} would also verify`,
  ],
  'content.verified': ({blobs, manifests, bytes, bad}) => [
    bad > 0 ? 'warn' : 'debug',
    `hashed ${blobs} blobs and ${manifests} manifests, ${bytes} B: ${bad} bad`,
  ],
  'store.checked': checkLine,
  'blob.missed': ({registry, repository, digest}) => [
    'debug',
    `blob ${digest} of ${registry}/${repository} is not here`,
  ],
  'cache.evicted': ({counts, bytes, youngest}) => ['info', evictionText(counts, bytes, youngest)],
  'cache.crowded': ({used, limit, kept}) => [
    'warn',
    `the cache uses ${used} of ${limit} B and cannot shrink: ${kept} images are kept, as they are pinned, among the newest (cache.keep) or were pushed here. What is pulled now may not be kept: raise cache.maxSize, or pin less`,
  ],
  'cache.broken-promise': ({registry, repository, digest}) => [
    'error',
    `blob ${digest} of ${registry}/${repository} was evicted although a manifest that names it was here; please report it`,
  ],
  // Clients that wait for a download have lines of their own, so most of these are at level debug.
  'fill.start': ({digest, resumedAt}) => [
    'debug',
    `downloading ${digest}${resumedAt > 0 ? ` from byte ${resumedAt}` : ''}`,
  ],
  'fill.resume': ({digest, at, reason}) => ['debug', `resuming ${digest} at byte ${at}: ${reason}`],
  'fill.interrupted': ({digest, at}) => [
    'info',
    `paused the download of ${digest} at byte ${at}: no client waits for it, and another download needs its connection`,
  ],
  'fill.done': ({digest, size, ms}) => ['info', `stored ${digest}, ${size} B in ${Math.round(ms)} ms`],
  'fill.failed': ({digest, reason}) => ['debug', `could not download ${digest}: ${reason}`],
  'fill.mismatch': ({digest, reason}) => ['error', `discarded the download of ${digest}: ${reason}`],
  'upstream.request': ({host, method, path, status, ms}) => [
    'debug',
    `${host}: ${method} ${path} ${status} ${Math.round(ms)} ms`,
  ],
  // The line of the client's request says the same.
  'upstream.failed': ({host, kind, reason}) => ['debug', `${host}: ${kind}: ${reason}`],
  'upstream.refused': ({reason}) => ['debug', reason],
  'upstream.throttled': ({host, reason, retryAfter}) => [
    'warn',
    `${reason}${retryAfter === undefined ? '' : `; no requests to ${host}${seconds(retryAfter)}`}`,
  ],
  'upstream.quota': ({host, limit, remaining}) => ['debug', `${host}: ${remaining} of ${limit} pulls left`],
  'upstream.circuit': ({host, repository, state}) => [
    state === 'open' ? 'warn' : 'info',
    state === 'open'
      ? `${repository === undefined ? host : `${host}: ${repository}`} keeps failing: no requests to it for a while (breaker.openFor)`
      : `${host}: the circuit breaker${repository === undefined ? '' : ` of ${repository}`} is ${state}`,
  ],
  'upstream.credentials-refused': ({host, reason}) => [
    'error',
    `${host} refused the credentials: ${reason}; check upstream.credentials of its registry`,
  ],
  'issuer.failed': ({issuer, reason, left}) => [
    'warn',
    left === undefined
      ? `the keys of the issuer ${issuer} cannot be read, so its tokens are refused with 503: ${reason}`
      : `the keys of the issuer ${issuer} cannot be read again: ${reason}. The known ones are used${seconds(left)} more`,
  ],
  'garbage.collected': ({pieces, bytes}) => [
    pieces > 0 ? 'info' : 'debug',
    `garbage collection removed ${pieces} ${pieces === 1 ? 'item' : 'items'}, ${bytes} B`,
  ],
  'disk.failed': ({message}) => ['error', message],
  'storage.migration': ({state, from, to, bytes}) => [
    'info',
    state === 'done'
      ? `the database has been migrated from schema ${from} to ${to}`
      : `migrates the database from schema ${from} to ${to}, ${Math.ceil(bytes / 1e6)} MB: nothing is answered until that is done, half a minute for a million manifests. If it is stopped, the next start begins anew`,
  ],
  'storage.read-only': ({reason}) => [
    'error',
    `${reason}. What is cached is served, everything else is passed on uncached, and pushes are refused. Free some space, or make the disk writable: backref tries again every 10 s`,
  ],
  'storage.writable': () => ['info', 'the metadata can be written again'],
  'audit.failed': ({lost, error}) => [
    'error',
    `the audit log cannot be written, ${lost} lines are lost: ${describeError(error)}`,
  ],
  'background.failed': ({task, error}) => ['error', `${task} failed: ${describeError(error)}`],
};

/** Secrets, each with its replacement. */
const SECRETS: readonly [pattern: RegExp, replacement: string][] = [
  [/\b(Bearer|Basic)\s+[\w.~+/=-]+/gi, '$1 [redacted]'],
  [/\/\/[^\s/@]+@/g, '//[redacted]@'],
  [
    /([?&](?:token|access_token|sig|signature|x-amz-signature|x-amz-credential|x-amz-security-token)=)[^&\s"]*/gi,
    '$1[redacted]',
  ],
];

/** Removes credentials from a text before it is logged: those in headers, in URLs and in signed links. */
export const redact = (text: string): string =>
  SECRETS.reduce((result, [pattern, replacement]) => result.replace(pattern, replacement), text);

/**
 * An error for the log: its stack, then its causes. Never its properties: an HTTP client's errors hold the request
 * with its headers.
 */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const text = error.stack ?? `${error.name}: ${error.message}`;
  return error.cause === undefined ? text : `${text}\ncaused by ${describeError(error.cause)}`;
}
