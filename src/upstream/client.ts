import type {Caller} from '../caller.ts';
import type {Clock} from '../clock.ts';
import type {UpstreamConfig} from '../config.ts';
import type {Events} from '../events.ts';
import type {RepositoryName} from '../oci/name.ts';
import type {Ask, Resource} from './api-request.ts';
import {createAsk} from './ask.ts';
import {createAuth} from './auth/auth.ts';
import {type Credentials, createCredentials} from './auth/credentials.ts';
import {createLoginGate, createOpenGate, type LoginGate} from './auth/login.ts';
import {createTokens} from './auth/token.ts';
import {type Upstream, UpstreamFailure, UpstreamRefusal, type UpstreamWriter} from './port.ts';
import {type Agents, createAgents, proxyNames} from './transport/agents.ts';
import {
  createLastQuota,
  createOpenRateGates,
  createRateGates,
  type LastQuota,
  type RateGates,
  type RateLimited,
} from './transport/rate-limits.ts';
import {createRedirectNetwork} from './transport/redirect.ts';
import {createSend, loadGot, type Send} from './transport/request.ts';
import {createSendStream, type SendStream} from './transport/send-stream.ts';
import {deleteBlob, getBlob, headBlob} from './verbs/blobs.ts';
import {checkLogin} from './verbs/login.ts';
import {deleteManifest, putManifest} from './verbs/manifest-writes.ts';
import {getManifest, headManifest} from './verbs/manifests.ts';
import {listReferrers} from './verbs/referrers.ts';
import {hasTags, listTags} from './verbs/tags.ts';
import {
  appendUpload,
  beginUpload,
  cancelUpload,
  finishUpload,
  pushBlob,
  uploadState,
} from './verbs/uploads.ts';

export interface UpstreamDeps {
  clock: Clock;
  events: Events;
  /** This server's pseudonym in `Via` (RFC 9110, section 7.6.3): one token, unique per server. */
  via: string;
  /** Where proxy variables and credential helpers are looked for; default the process's environment. */
  env?: NodeJS.ProcessEnv;
}

/** An upstream registry over HTTP. */
export interface UpstreamClient extends Upstream, UpstreamWriter {}

/** Where uploads begin (distribution-spec, end-4). */
const UPLOADS = 'blobs/uploads/';
/** How long no login is tried after our credentials were refused. */
const LOGIN_PAUSE_MS = 60_000;
const CREDENTIALS_REFUSED =
  'refused the credentials of upstream.credentials; correct them: the next login is tried within a minute';

/** Loads what the first request of any client would have to load. Sends nothing. */
export async function prepareClients(): Promise<void> {
  await loadGot();
}

/**
 * Creates the client of one upstream, with its own connections, tokens, limits and breakers. Sends nothing by itself.
 * @throws an Error when the URL is neither https, nor http with `insecure`; the configuration reports that earlier.
 */
export function createUpstream(options: UpstreamConfig, deps: UpstreamDeps): UpstreamClient {
  const upstream = new URL(options.url);
  if (upstream.protocol !== 'https:' && !(upstream.protocol === 'http:' && options.insecure)) {
    throw new Error(
      `${options.url}: an upstream URL must begin with https://, or with http:// and "insecure: true"`,
    );
  }
  const root = `${upstream.origin}${upstream.pathname.replace(/\/$/, '')}/v2`;
  const {ask, ...connection} = connect(options, upstream, new URL(`${root}/`), deps);
  return createVerbs(upstream.host, root, ask, connection, deps);
}

function createVerbs(
  host: string,
  root: string,
  ask: Ask,
  {agents, quota}: Omit<Connection, 'ask'>,
  {clock, events}: UpstreamDeps,
): UpstreamClient {
  const to = (repository: RepositoryName, path: string, caller: Caller): Resource => ({
    url: new URL(`${root}/${repository}/${path}`),
    repository,
    caller,
  });
  const session = (repository: RepositoryName, location: string, caller: Caller): Resource => ({
    url: new URL(location),
    repository,
    caller,
  });
  const reporting = <T>(work: Promise<T>): Promise<T> => reportFailure(work, host, events);

  return {
    host,
    quota: () => quota.current(),
    headManifest: (repository, reference, caller) =>
      reporting(headManifest(ask, to(repository, `manifests/${reference}`, caller), reference)),
    getManifest: (repository, reference, caller, cacheControl) =>
      reporting(getManifest(ask, to(repository, `manifests/${reference}`, caller), reference, cacheControl)),
    headBlob: (repository, digest, caller) =>
      reporting(headBlob(ask, to(repository, `blobs/${digest}`, caller))),
    getBlob: (repository, digest, caller, range, demand) =>
      reporting(getBlob(ask, to(repository, `blobs/${digest}`, caller), range, {slot: 'bodies', demand})),
    streamBlob: (repository, digest, caller, range) =>
      reporting(getBlob(ask, to(repository, `blobs/${digest}`, caller), range, {slot: 'streams'})),
    listTags: (repository, caller, spend) =>
      reporting(listTags(ask, to(repository, 'tags/list', caller), clock, spend)),
    hasTags: (repository, caller) => reporting(hasTags(ask, to(repository, 'tags/list', caller))),
    checkLogin: (caller) => reporting(checkLogin(ask, new URL(`${root}/`), caller)),
    listReferrers: (repository, subject, caller) =>
      reporting(listReferrers(ask, to(repository, `referrers/${subject}`, caller), clock)),
    pushBlob: (repository, blob, caller) => {
      const {url} = to(repository, UPLOADS, caller);
      return reporting(pushBlob(ask, to(repository, `blobs/${blob.digest}`, caller), url, blob));
    },
    beginUpload: (repository, wanted, caller) =>
      reporting(beginUpload(ask, to(repository, UPLOADS, caller), wanted)),
    appendUpload: (repository, {location, offset}, chunk, caller) =>
      reporting(appendUpload(ask, session(repository, location, caller), offset, chunk)),
    uploadState: (repository, {location, offset}, caller) =>
      reporting(uploadState(ask, session(repository, location, caller), offset)),
    finishUpload: (repository, location, digest, chunk, caller) =>
      reporting(finishUpload(ask, session(repository, location, caller), digest, chunk)),
    cancelUpload: (repository, location, caller) =>
      reporting(cancelUpload(ask, session(repository, location, caller))),
    putManifest: (repository, reference, manifest, caller) =>
      reporting(putManifest(ask, to(repository, `manifests/${reference}`, caller), reference, manifest)),
    deleteManifest: (repository, reference, caller) =>
      reporting(deleteManifest(ask, to(repository, `manifests/${reference}`, caller))),
    deleteBlob: (repository, digest, caller) =>
      reporting(deleteBlob(ask, to(repository, `blobs/${digest}`, caller))),
    close: () => agents.close(),
  };
}

/** Reports a failure, once for each call to the client. A refusal is an event of its own, because its cause is the caller's. */
async function reportFailure<T>(work: Promise<T>, host: string, events: Events): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof UpstreamRefusal) {
      events.emit('upstream.refused', {host, reason: error.message});
    } else if (error instanceof UpstreamFailure) {
      events.emit('upstream.failed', {host, kind: error.kind, reason: error.message});
    }
    throw error;
  }
}

interface Connection {
  ask: Ask;
  agents: Agents;
  quota: LastQuota;
}

/** Builds the parts of a client and connects them. */
function connect(
  options: UpstreamConfig,
  upstream: URL,
  base: URL,
  {clock, events, via, env = process.env}: UpstreamDeps,
): Connection {
  const {host} = upstream;
  const agents = createAgents(options.ca, env);
  const isPassthrough = options.credentials?.kind === 'passthrough';
  const limited = ({host: limiting, reason, retryAfter}: RateLimited) =>
    events.emit('upstream.throttled', {host: limiting, reason: `${host}: ${reason}`, retryAfter});
  // A limit that an account has reached says nothing about the accounts of other callers.
  const gates = isPassthrough ? createOpenRateGates(host, limited) : createRateGates(host, clock, limited);
  const quota = createLastQuota(clock);
  const proxies = proxyNames(env);
  const networkFor = (listed: readonly string[]) => createRedirectNetwork(upstream, {listed, proxies, clock});
  const {send, sendStream} = createSenders(options, host, gates, {clock, events, agents});
  const credentials = createCredentials(options.credentials, host, clock, env);
  const gate = isPassthrough
    ? createOpenGate((status) => loginRefused(host, status))
    : createGate(host, credentials, clock, events);
  const {insecure, realmHosts, redirectHosts, timeouts} = options;
  const tokens = createTokens({
    host,
    send,
    credentials,
    gate,
    gates,
    networkOf: networkFor([...redirectHosts, ...realmHosts]),
    clock,
    budget: timeouts.headers,
  });
  const ask = createAsk(options, {
    upstream,
    send,
    sendStream,
    auth: createAuth({upstream, insecure, realmHosts, credentials, gate, tokens}),
    gates,
    quota,
    networkOf: networkFor(redirectHosts),
    hasCredentials: credentials.configured,
    clock,
    events,
    via,
    base,
  });
  return {ask, agents, quota};
}

function createGate(host: string, credentials: Credentials, clock: Clock, events: Events): LoginGate {
  const refusal = (retryAfter: number): UpstreamFailure =>
    new UpstreamFailure('credentials', host, CREDENTIALS_REFUSED, {retryAfter});
  return createLoginGate(LOGIN_PAUSE_MS, clock, refusal, () => {
    credentials.forget();
    events.emit('upstream.credentials-refused', {host, reason: `${host}: ${CREDENTIALS_REFUSED}`});
  });
}

/** Of a caller's own login: that is an answer to this caller. */
const loginRefused = (host: string, status: 401 | 403): UpstreamFailure => {
  const reason = status === 401 ? 'refuses the login' : 'does not permit this with the login';
  return new UpstreamFailure('denied', host, `${reason} (${status})`, {status});
};

function createSenders(
  {realmHosts, redirectHosts, timeouts}: UpstreamConfig,
  host: string,
  gates: RateGates,
  parts: {clock: Clock; events: Events; agents: Agents},
): {send: Send; sendStream: SendStream} {
  const configured = new Set([host, ...realmHosts, ...redirectHosts]);
  /** Hosts may be listed without their port. */
  const labelOf = (name: string): string =>
    [name, name.replace(/:\d+$/, '')].find((label) => configured.has(label)) ?? 'other';
  const sendUngated = createSend({...parts, labelOf, timeouts});
  return {
    send: async (request, signal) => {
      gates.check(request.url.host);
      return sendUngated(request, signal);
    },
    // The last request of an upload makes the upstream store the blob, which takes time.
    sendStream: createSendStream({
      ...parts,
      labelOf,
      timeouts: {...timeouts, answer: timeouts.headers + timeouts.idle},
    }),
  };
}
