import type {Caller} from '../caller.ts';
import type {Clock} from '../clock.ts';
import type {UpstreamConfig} from '../config.ts';
import type {Events} from '../events.ts';
import type {RepositoryName} from '../oci/name.ts';
import {createAuth} from './auth/auth.ts';
import {createCredentials} from './auth/credentials.ts';
import {createLoginGate} from './auth/login-gate.ts';
import {createTokens} from './auth/token.ts';
import {createExchange} from './exchange.ts';
import {type Upstream, UpstreamFailure, UpstreamRefusal, type UpstreamWriter} from './port.ts';
import {createAgents, proxyNames} from './transport/agents.ts';
import type {Quota} from './transport/quota.ts';
import {createRateGates} from './transport/rate-limits.ts';
import {createRedirectNetwork} from './transport/redirect-hosts.ts';
import {createSend, type Send} from './transport/request.ts';
import {createSendStream} from './transport/send-stream.ts';
import type {Target} from './transport/target.ts';
import {deleteBlob, getBlob, headBlob} from './verbs/blobs.ts';
import {deleteManifest, putManifest} from './verbs/manifest-writes.ts';
import {getManifest, headManifest} from './verbs/manifests.ts';
import {pushBlob} from './verbs/push.ts';
import {listReferrers} from './verbs/referrers.ts';
import {listTags} from './verbs/tags.ts';
import {appendUpload, beginUpload, cancelUpload, finishUpload, uploadState} from './verbs/uploads.ts';

export interface UpstreamDeps {
  clock: Clock;
  events: Events;
  /** This server's pseudonym in `Via` (RFC 9110, section 7.6.3): one token, unique per server. */
  via: string;
  /** Where the proxy variables are read and credential helpers are looked for; default the process's environment. */
  env?: NodeJS.ProcessEnv;
}

/** An upstream registry over HTTP. */
export interface UpstreamClient extends Upstream, UpstreamWriter {
  /** The rate limit as the upstream last told it. */
  quota(): Quota | undefined;
}

/** Where uploads begin (distribution-spec, end-4). */
const UPLOADS = 'blobs/uploads/';
/** Milliseconds without a login after our credentials were refused. */
const LOGIN_PAUSE = 60_000;
const REFUSED =
  'refused the credentials of upstream.credentials; correct them: the next login is tried within a minute';

/**
 * The client of one upstream, with its own connections, tokens, limits and breakers. Asks nothing by itself.
 * @throws an Error when the URL is neither https, nor http with `insecure`; the configuration says so earlier.
 */
export function createUpstream(options: UpstreamConfig, deps: UpstreamDeps): UpstreamClient {
  const {clock, events, via, env = process.env} = deps;
  const {insecure, realmHosts, redirectHosts, timeouts} = options;
  const upstream = new URL(options.url);
  const {host} = upstream;
  if (upstream.protocol !== 'https:' && !(upstream.protocol === 'http:' && insecure)) {
    throw new Error(`${options.url}: an upstream is https://, or http:// with "insecure: true"`);
  }

  const agents = createAgents(options.ca, env);
  const gates = createRateGates(host, clock, ({host: limiting, reason, retryAfter}) =>
    events.emit('upstream.throttled', {host: limiting, reason: `${host}: ${reason}`, retryAfter}),
  );
  const proxies = proxyNames(env);
  const networkOf = createRedirectNetwork(upstream, {listed: redirectHosts, proxies, clock});
  const configured = new Set([host, ...realmHosts, ...redirectHosts]);
  /** Hosts may be listed without their port. */
  const labelOf = (name: string): string =>
    [name, name.replace(/:\d+$/, '')].find((label) => configured.has(label)) ?? 'other';
  const sendUngated = createSend({clock, events, agents, labelOf, timeouts});
  const send: Send = async (request, signal) => {
    gates.check(request.url.host);
    return sendUngated(request, signal);
  };
  const sendStream = createSendStream({
    clock,
    events,
    agents,
    labelOf,
    // The last bytes may close an upload, whose storage takes its time.
    timeouts: {...timeouts, answer: timeouts.headers + timeouts.idle},
  });
  const credentials = createCredentials(options.credentials, host, clock, env);
  const gate = createLoginGate(
    LOGIN_PAUSE,
    clock,
    (retryAfter) => new UpstreamFailure('credentials', host, REFUSED, {retryAfter}),
    () => {
      credentials.forget();
      events.emit('upstream.credentials-refused', {host, reason: `${host}: ${REFUSED}`});
    },
  );
  const tokens = createTokens({
    host,
    send,
    credentials,
    gate,
    gates,
    networkOf: createRedirectNetwork(upstream, {listed: [...redirectHosts, ...realmHosts], proxies, clock}),
    clock,
    budget: timeouts.headers,
  });
  const auth = createAuth({upstream, insecure, realmHosts, credentials, gate, tokens});
  const root = `${upstream.origin}${upstream.pathname.replace(/\/$/, '')}/v2`;
  const base = new URL(`${root}/`);
  const {ask, quota} = createExchange(options, {
    upstream,
    send,
    sendStream,
    auth,
    gates,
    networkOf,
    hasCredentials: credentials.configured,
    clock,
    events,
    via,
    base,
  });

  const target = (repository: RepositoryName, path: string, caller: Caller): Target => ({
    url: new URL(`${root}/${repository}/${path}`),
    repository,
    caller,
  });

  /** Tells of a failure, once for each question that was put to this client. A refusal is its asker's to judge. */
  const told = <T>(work: Promise<T>): Promise<T> =>
    work.catch((error: unknown) => {
      if (error instanceof UpstreamRefusal) {
        events.emit('upstream.refused', {host, reason: error.message});
      } else if (error instanceof UpstreamFailure) {
        events.emit('upstream.failed', {host, kind: error.kind, reason: error.message});
      }
      throw error;
    });

  return {
    host,
    headManifest: (repository, reference, caller) =>
      told(headManifest(ask, target(repository, `manifests/${reference}`, caller), reference)),
    getManifest: (repository, reference, caller, cacheControl) =>
      told(getManifest(ask, target(repository, `manifests/${reference}`, caller), reference, cacheControl)),
    headBlob: (repository, digest, caller) =>
      told(headBlob(ask, target(repository, `blobs/${digest}`, caller))),
    getBlob: (repository, digest, caller, range, demand) =>
      told(getBlob(ask, target(repository, `blobs/${digest}`, caller), range, {slot: 'bodies', demand})),
    streamBlob: (repository, digest, caller, range) =>
      told(getBlob(ask, target(repository, `blobs/${digest}`, caller), range, {slot: 'streams'})),
    listTags: (repository, caller, spend) =>
      told(listTags(ask, target(repository, 'tags/list', caller), clock, spend)),
    listReferrers: (repository, subject, caller) =>
      told(listReferrers(ask, target(repository, `referrers/${subject}`, caller), clock)),
    pushBlob: (repository, blob, caller) => {
      const uploads = target(repository, UPLOADS, caller).url;
      return told(pushBlob(ask, target(repository, `blobs/${blob.digest}`, caller), uploads, blob));
    },
    beginUpload: (repository, wish, caller) =>
      told(beginUpload(ask, target(repository, UPLOADS, caller), wish)),
    appendUpload: (repository, {location, offset}, chunk, caller) =>
      told(appendUpload(ask, {url: new URL(location), repository, caller}, offset, chunk)),
    uploadState: (repository, {location, offset}, caller) =>
      told(uploadState(ask, {url: new URL(location), repository, caller}, offset)),
    finishUpload: (repository, location, digest, chunk, caller) =>
      told(finishUpload(ask, {url: new URL(location), repository, caller}, digest, chunk)),
    cancelUpload: (repository, location, caller) =>
      told(cancelUpload(ask, {url: new URL(location), repository, caller})),
    putManifest: (repository, reference, manifest, caller) =>
      told(putManifest(ask, target(repository, `manifests/${reference}`, caller), reference, manifest)),
    deleteManifest: (repository, reference, caller) =>
      told(deleteManifest(ask, target(repository, `manifests/${reference}`, caller))),
    deleteBlob: (repository, digest, caller) =>
      told(deleteBlob(ask, target(repository, `blobs/${digest}`, caller))),
    close: agents.close,
    quota,
  };
}
