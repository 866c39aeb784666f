import {EventEmitter} from 'node:events';
import type {Action} from './caller.ts';
import type {Digest} from './oci/digest.ts';
import type {RepositoryName} from './oci/name.ts';
import type {FailureKind} from './upstream/port.ts';

/** The events of one server, for its log and its metrics. Sizes in bytes, durations in milliseconds. */
export interface EventMap {
  'request.start': [{id: string; method: string; url: string}];
  'request.end': [
    {
      id: string;
      method: string;
      /** Path and query as the client sent them. */
      url: string;
      kind: RequestKind;
      status: number;
      outcome: RequestOutcome;
      /** Why it failed, was refused, or was served stale. */
      reason: string | undefined;
      ms: number;
      /** Bytes of the request's body that were read. */
      received: number;
      /** Bytes of the response, headers included, as counted at the socket. */
      bytes: number;
      /** The client's address, or the one that a trusted proxy names. */
      client: string | undefined;
      userAgent: string | undefined;
      /** The caller's own name: `anonymous`, `user:alice`. */
      caller: string;
      /** What the caller wanted to do there; undefined where a request needs no permission. */
      action: Action | undefined;
      registry: string | undefined;
      /** Inside the registry. */
      repository: RepositoryName | undefined;
      /** Of the content that was answered with, or that was pushed. */
      digest: Digest | undefined;
      /** The `Cache-Status` of the response. */
      cache: string | undefined;
    },
  ];
  /** A request failed, or was answered with a stale copy: its `request.end`, for who needs to hear of no others. */
  'request.trouble': EventMap['request.end'];
  /** Requests have ended. Those that got a prepared answer are reported here alone, unless somebody hears each of them. */
  'requests.counted': [readonly CountedRequests[]];
  /** A request or a connection was refused, as the setting `limit` allows no more. */
  'limit.exceeded': [{limit: string; client: string | undefined}];
  /** The same with what the client was told, emitted at most once a minute for each setting. */
  'limit.reached': [{limit: string; reason: string}];
  /** The rules deny a caller something (`enforce`), or would if they were enforced (`audit`). */
  'access.denied': [
    {
      mode: 'enforce' | 'audit';
      /** The caller's own name: `user:alice`, or `anonymous`. */
      caller: string;
      action: string;
      registry: string | undefined;
      repository: string | undefined;
      tag: string | undefined;
      /** Which rule decides, or what is missing. */
      reason: string;
    },
  ];
  /** Connections cannot be accepted, most often because too many files are open; emitted at most once a second. */
  'listener.failed': [{error: Error}];
  /** A listener uses another key pair for TLS from now on. `expiresAt`: milliseconds since the epoch, as below. */
  'certificate.loaded': [{listener: string; path: string; expiresAt: number}];
  /** The files of a listener's key pair have changed and cannot be used. The pair before stays in use. */
  'certificate.rejected': [{listener: string; path: string; problem: string}];
  /** The certificate that a listener uses has expired. */
  'certificate.expired': [{listener: string; path: string; expiresAt: number}];
  /** A client was disconnected before its first request: TLS failed, or its certificate does not verify. */
  'client.handshake-failed': [{address: string | undefined; reason: string}];
  /** A worker has ended by itself, with its connections. Another one starts in `ms`. */
  'worker.ended': [{reason: string; ms: number}];
  /** This thread was busy: `count` threads answer requests now. */
  'workers.started': [{count: number}];
  /** This system cannot share ports among the `count` threads that the configuration wants: one serves alone. */
  'workers.unavailable': [{count: number}];
  /** An error that nothing handled: a defect of backref or of a library. */
  'server.fault': [{origin: 'promise' | 'exception'; error: unknown}];
  /** A client read nothing of its response for `ms`, and was disconnected. */
  'client.stalled': [{address: string | undefined; ms: number}];
  'request.fault': [{id: string; error: unknown}];
  /** Somebody logged in, or showed a credential of this kind again. Not emitted for this server's own tokens. */
  'login.accepted': [{method: string}];
  /** A credential was wrong. `method` is the kind of credential, `unknown` for one of no kind that is known here. */
  'login.refused': [{method: string; reason: string; client: string | undefined}];
  /** The file of users has faults, or cannot be read; the users that it had before stay. */
  'login.users-rejected': [{path: string; reason: string}];
  'manifest.served': [{registry: string; repository: string; outcome: Outcome}];
  'blob.served': [{registry: string; repository: string; digest: Digest; outcome: Outcome}];
  'referrers.served': [{registry: string; repository: string; outcome: Outcome}];
  /** What is known of an upstream's Referrers API has changed. */
  'referrers.capability': [
    {
      registry: string;
      repository: string;
      host: string;
      capability: 'supported' | 'unsupported' | 'unknown';
    },
  ];
  /** The number of changes that are not yet written to upstreams' fallback tags has changed. */
  'referrers.tag-pending': [{changes: number}];
  /** This many changes were written to an upstream's fallback tag. */
  'referrers.tag-written': [{registry: string; name: string; subject: Digest; changes: number}];
  /** An upstream's fallback tag could not be written; the write is retried. */
  'referrers.tag-failed': [
    {registry: string; name: string; host: string; subject: Digest; kind: FailureKind; reason: string},
  ];
  /** A fallback tag is not a list of referrers: it is not overwritten, and its changes stay pending. */
  'referrers.tag-unusable': [{registry: string; name: string; host: string; tag: string; what: string}];
  /** A subject has reached this many referrers of one type, pushed here or to the upstream. */
  'referrers.crowded': [
    {registry: string; repository: string; subject: Digest; artifactType: string; atLeast: number},
  ];
  /**
   * The bytes of a stored blob are missing or bad. The next pull fetches a copy again; what was pushed here is not served
   * until it is pushed again.
   */
  'blob.damaged': [
    {digest: Digest; origin: 'upstream' | 'local'; problem: 'missing' | 'damaged' | 'unreadable'},
  ];
  /** The bytes of a stored manifest are damaged: it is not served, and the next pull or push replaces it. */
  'manifest.damaged': [{registry: string; repository: string; digest: Digest; origin: 'upstream' | 'local'}];
  /** Stored content was hashed again: how much of it, and how much of that was bad. */
  'content.verified': [{blobs: number; manifests: number; bytes: number; bad: number}];
  /**
   * What a crash may have left was looked for after the start: `blobs` whose rows were compared with their files, lost
   * `copies`, which were forgotten, lost blobs that were pushed here (`local`), `deletions` that were ended, files without
   * a row (`unrecorded`), and the bytes of partial downloads and uploads. Not complete when the time was over.
   */
  'store.checked': [
    {
      blobs: number;
      copies: number;
      local: number;
      deletions: number;
      unrecorded: number;
      spoolBytes: number;
      isComplete: boolean;
    },
  ];
  /** A blob that is asked for is not here, nor is it being downloaded. */
  'blob.missed': [{registry: string; repository: RepositoryName; digest: Digest}];
  /**
   * Images were evicted, so that the cache keeps to its limit: how many for each reason, the bytes that are free now, and
   * how many milliseconds ago the one that was used last among them was used. `probation`: used too rarely since they
   * arrived; `value`: worth least. `unrooted`: blobs that no manifest names; `damaged`: old damaged copies;
   * `removed`: by an operator.
   */
  'cache.evicted': [
    {
      counts: {probation: number; value: number; unrooted: number; damaged: number; removed: number};
      bytes: number;
      youngest: number | undefined;
    },
  ];
  /** The cache cannot be brought down to the low watermark, in bytes: these `kept` images are never evicted. */
  'cache.crowded': [{used: number; limit: number; kept: number}];
  /** A blob was missed that was evicted although a manifest that names it was here. A defect. */
  'cache.broken-promise': [{registry: string; repository: RepositoryName; digest: Digest}];
  /**
   * The pinned images were looked at: how many would pull and verify with their upstreams gone, how many would only pull,
   * and how many would not.
   */
  'images.checked': [{verifies: number; pulls: number; incomplete: number}];
  'fill.start': [{digest: Digest; resumedAt: number}];
  'fill.resume': [{digest: Digest; at: number; reason: string}];
  /** A download that no client waits for was paused for one that a client waits for, at this byte. */
  'fill.interrupted': [{digest: Digest; at: number}];
  'fill.done': [{digest: Digest; size: number; ms: number}];
  'fill.failed': [{digest: Digest; reason: string}];
  'fill.mismatch': [{digest: Digest; reason: string}];
  'upstream.request': [
    {
      host: string;
      /** The host if it is configured, else `other`: an upstream may redirect to any number of hosts. */
      label: string;
      method: string;
      path: string;
      status: number;
      ms: number;
    },
  ];
  'upstream.failed': [{host: string; kind: FailureKind; reason: string}];
  /** An upstream refused a write. Most often that is the client's fault, and the client gets the reason as well. */
  'upstream.refused': [{host: string; reason: string}];
  /** A host limits the rate. It gets no requests for `retryAfter`, in which this is not emitted again. */
  'upstream.throttled': [{host: string; reason: string; retryAfter: number | undefined}];
  'upstream.quota': [{host: string; limit: number; remaining: number; window: number | undefined}];
  /** The circuit breaker of an upstream, or of one of its repositories, changed its state. */
  'upstream.circuit': [{host: string; repository?: RepositoryName; state: 'open' | 'half-open' | 'closed'}];
  'upstream.credentials-refused': [{host: string; reason: string}];
  /**
   * The keys of an issuer of tokens could not be read. How old the known ones are, and for how long they are still used;
   * undefined while none are known.
   */
  'issuer.failed': [{issuer: string; reason: string; age: number | undefined; left: number | undefined}];
  /** Garbage collection ended: the number of items removed, of all kinds, and their bytes. */
  'garbage.collected': [{pieces: number; bytes: number}];
  /** A disk failed to read or to write. The message names the folder or file, and what to check. */
  'disk.failed': [{part: 'blobs' | 'metadata'; code: string; message: string}];
  /**
   * The database of an older version is migrated: the numbers of its schema and of the new one, and the size of its file in bytes.
   * Between the two states the process does nothing else.
   */
  'storage.migration': [{state: 'begins' | 'done'; from: number; to: number; bytes: number}];
  /** The metadata can only be read: nothing is kept and no push is accepted until `storage.writable`. */
  'storage.read-only': [{reason: string}];
  'storage.writable': [];
  /** Lines of the audit log could not be written and are lost; emitted at most once in ten seconds. */
  'audit.failed': [{lost: number; error: unknown}];
  /** Work that no request waits for failed. */
  'background.failed': [{task: string; error: unknown}];
}

type RequestFacts = EventMap['request.end'][0];

/** Requests with equal answers, counted together. Plain data. */
export interface CountedRequests
  extends Readonly<
    Pick<
      RequestFacts,
      'method' | 'kind' | 'status' | 'outcome' | 'caller' | 'registry' | 'repository' | 'digest'
    >
  > {
  readonly count: number;
  /** Of all of them. */
  readonly received: number;
  readonly bytes: number;
  /** The number of requests for each duration, in milliseconds. */
  readonly durations: ReadonlyMap<number, number>;
  /** The client of the last one. */
  readonly client: string | undefined;
  /** When the first and the last one ended: milliseconds since the epoch. */
  readonly first: number;
  readonly last: number;
  /** The method of the logins that are not reported by `login.accepted`. */
  readonly login: string | undefined;
  /** Whether no other event reports what these requests were served. */
  readonly isServedHere: boolean;
}

/** What is written to the log. */
export type LoggedEvent = Exclude<keyof EventMap, 'request.trouble' | 'requests.counted'>;

export type Outcome = 'hit' | 'miss' | 'collapsed' | 'stale' | 'revalidated';

/** What a request asks for, by its route. `probe` is a health check; `other` has no route. */
export type RequestKind =
  | 'ping'
  | 'manifest'
  | 'blob'
  | 'tags'
  | 'referrers'
  | 'catalog'
  | 'upload'
  | 'metrics'
  | 'token'
  | 'probe'
  | 'other';

/**
 * How a request ended. `done`: answered without the cache; `refused`: with a 4xx; `failed`: with a 5xx, or during its
 * response; `aborted`: by its client, before the end of the response.
 */
export type RequestOutcome = Outcome | 'done' | 'refused' | 'failed' | 'aborted';

export type Events = EventEmitter<EventMap>;

/** The events of one server; two servers in one process do not share them. */
export const createEvents = (): Events => new EventEmitter<EventMap>();
