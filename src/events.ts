import {EventEmitter} from 'node:events';
import type {Digest} from './oci/digest.ts';
import type {RepositoryName} from './oci/name.ts';
import type {FailureKind} from './upstream/port.ts';

/** Everything that one server tells its log and its metrics. Sizes in bytes, durations in milliseconds. */
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
      /** Of the request's body, as far as it was read. */
      received: number;
      /** Sent as the answer, headers included, as counted at the socket. */
      bytes: number;
      /** The client's address: its own, or the one that a trusted proxy names. */
      client: string | undefined;
      userAgent: string | undefined;
      registry: string | undefined;
      /** The `Cache-Status` that the client was given. */
      cache: string | undefined;
    },
  ];
  /** Connections of clients cannot be accepted, most often because too many files are open; told once a second. */
  'listener.failed': [{error: Error}];
  /** An error that nothing handled: a defect of backref's, or of a library's. */
  'server.fault': [{origin: 'promise' | 'exception'; error: unknown}];
  /** A client took none of the bytes that waited for it for so long, and was disconnected. */
  'client.stalled': [{address: string | undefined; ms: number}];
  'request.fault': [{id: string; error: unknown}];
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
  /** So many changes of upstreams' fallback tags are owed in all, after each change of the number. */
  'referrers.tag-owed': [{changes: number}];
  /** An upstream's fallback tag was written, and holds so many changes more. */
  'referrers.tag-written': [{registry: string; name: string; subject: Digest; changes: number}];
  /** An upstream's fallback tag could not be written; it is tried again later. */
  'referrers.tag-failed': [
    {registry: string; name: string; host: string; subject: Digest; kind: FailureKind; reason: string},
  ];
  /** What stands under a fallback tag is no list of referrers: it is left as it is, and what is owed to it stays owed. */
  'referrers.tag-unusable': [{registry: string; name: string; host: string; tag: string; what: string}];
  /** A subject has come to have at least so many referrers of one type, attached here or at the upstream. */
  'referrers.crowded': [
    {registry: string; repository: string; subject: Digest; artifactType: string; atLeast: number},
  ];
  /** The disk has damaged a stored blob: it is not served, and is replaced by the next pull or push that brings it. */
  'blob.damaged': [{digest: Digest}];
  'fill.start': [{digest: Digest; resumedAt: number}];
  'fill.resume': [{digest: Digest; at: number; reason: string}];
  /** A download that nobody waits for made way for one that somebody waits for, after so many bytes. */
  'fill.interrupted': [{digest: Digest; at: number}];
  'fill.done': [{digest: Digest; size: number; ms: number}];
  'fill.failed': [{digest: Digest; reason: string}];
  'fill.mismatch': [{digest: Digest; reason: string}];
  'upstream.request': [
    {
      host: string;
      /** The host where it is configured, else `other`: an upstream may redirect to any number of hosts. */
      label: string;
      method: string;
      path: string;
      status: number;
      ms: number;
    },
  ];
  'upstream.failed': [{host: string; kind: FailureKind; reason: string}];
  /** An upstream's own no to something that was written: most often its writer's fault, who hears it as well. */
  'upstream.refused': [{host: string; reason: string}];
  /** A host limits our rate. Until `retryAfter` is over it is not asked, and this is not told again. */
  'upstream.throttled': [{host: string; reason: string; retryAfter: number | undefined}];
  'upstream.quota': [{host: string; limit: number; remaining: number; window: number | undefined}];
  /** Of the whole upstream, or of one repository of it. */
  'upstream.circuit': [{host: string; repository?: RepositoryName; state: 'open' | 'half-open' | 'closed'}];
  'upstream.credentials-refused': [{host: string; reason: string}];
  /** Content that nothing refers to was collected: pieces of all kinds, and the bytes that they had. */
  'garbage.collected': [{pieces: number; bytes: number}];
  /** Something went wrong in work that no request waits for. */
  'background.failed': [{task: string; error: unknown}];
}

export type Outcome = 'hit' | 'miss' | 'collapsed' | 'stale' | 'revalidated';

/** What a request asks for, after the routes. `probe` is a health check, `other` no route at all. */
export type RequestKind =
  | 'ping'
  | 'manifest'
  | 'blob'
  | 'tags'
  | 'referrers'
  | 'catalog'
  | 'upload'
  | 'metrics'
  | 'probe'
  | 'other';

/**
 * How a request ended. `done`: answered without the cache; `refused`: by a 4xx; `failed`: by a 5xx, or in the middle of
 * its answer; `aborted`: by its client, before the end of the answer.
 */
export type RequestOutcome = Outcome | 'done' | 'refused' | 'failed' | 'aborted';

export type Events = EventEmitter<EventMap>;

/** The events of one server; two servers in one process do not hear each other. */
export const createEvents = (): Events => new EventEmitter<EventMap>();
