import {type IncomingHttpHeaders, request} from 'node:http';
import {createEvents, type EventMap} from '../../src/events.ts';
import {type AppParts, createApp} from '../../src/http/app.ts';
import type {DoorParts} from '../../src/http/door.ts';
import type {Entrance} from '../../src/http/entrance.ts';
import {createLimits} from '../../src/http/limits.ts';
import {createListener} from '../../src/http/listener.ts';
import type {Verbs} from '../../src/http/routes.ts';
import {createAttempts} from '../../src/identity/attempts.ts';
import {createAuthenticator} from '../../src/identity/authenticator.ts';
import {createOwnLogins} from '../../src/identity/own-logins.ts';
import {createUploadId} from '../../src/oci/upload.ts';
import {createGenerations} from '../../src/registry/generations.ts';
import type {Chunk, Push, UploadState} from '../../src/registry/push/push.ts';
import {createPush} from '../../src/registry/push/push.ts';
import {createRegistries, type Registry} from '../../src/registry/registries.ts';
import {createEmptyUpstream} from '../../src/upstream/empty.ts';
import {createMovableClock, LIMITS, type MovableClock} from '../support/backref.ts';
import type {Lifetime} from '../support/shared.ts';

const registry = (name: string): Registry => ({
  name,
  aliases: [],
  hosts: [],
  library: false,
  serves: () => true,
  upstream: createEmptyUpstream(name),
  hosted: true,
  approvals: undefined,
  push: {mode: 'local', validate: {blobs: true, children: true, sizes: false}, tags: 'deny', keep: undefined},
  maxManifest: 64 * 1024,
  limits: {children: 50_000, depth: 8, blob: undefined, repository: undefined},
  tags: {ttl: 0, maxStale: 0, keepDeleted: 0, absentTtl: 0},
  tagRules: [],
  referrers: {mode: 'auto', ttl: 0, maxStale: 0, prefetch: 'off'},
  rateLimitStatus: 503,
  quota: 'gentle',
});

/** Bytes of a chunk, all of them. */
export async function bytesOf({bytes}: Chunk): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of bytes) chunks.push(chunk);
  return Buffer.concat(chunks);
}

export const ID = createUploadId();
export const state = (offset: number, minChunk?: number): UploadState => ({id: ID, offset, minChunk});

/** `docker.io`, the default, and `ghcr.io`, which take pushes. */
export const REGISTRIES = createRegistries([registry('docker.io'), registry('ghcr.io')], 'docker.io');

export interface HttpServer {
  port: number;
  clock: MovableClock;
  requests: EventMap['request.end'][0][];
  faults: unknown[];
}

/** Nobody can log in, and everything is allowed. */
export const OPEN_DOOR: DoorParts = {
  access: {
    registry: () => ({verdict: 'allowed'}),
    repository: () => ({verdict: 'allowed'}),
    disclosure: () => ({verdict: 'allowed'}),
    may: () => true,
    isOpenTo: () => true,
    visibleRepositories: () => () => true,
  },
  authenticator: createAuthenticator([], createEvents()),
  loginPlace: {service: 'registry.test', realm: undefined},
  ownLogins: createOwnLogins({
    seal: {
      close: async () => '',
      open: async () => undefined,
    },
    attempts: createAttempts(createMovableClock()),
    clock: createMovableClock(),
    events: createEvents(),
  }),
};

/** The entrance of a plain listener on a loopback address that trusts no proxy. */
export const entranceOf = (differences: Partial<Entrance>): Entrance => ({
  number: 0,
  isLoopback: true,
  isSecure: false,
  serves: 'main',
  isTrustedProxy: () => false,
  certificate: undefined,
  ...differences,
});

/** The HTTP side alone, in front of the verbs that a test gives. */
export async function startHttpServer(
  t: Lifetime,
  {verbs, clock = createMovableClock(), ...door}: Partial<AppParts> & {clock?: MovableClock},
): Promise<HttpServer> {
  const events = createEvents();
  const requests: HttpServer['requests'] = [];
  const faults: unknown[] = [];
  events.on('request.end', (request) => void requests.push(request));
  events.on('request.fault', ({error}) => void faults.push(error));
  const limits = createLimits(LIMITS, {clock, events});
  const app = createApp({
    verbs: verbs as Verbs,
    ...OPEN_DOOR,
    registries: () => REGISTRIES,
    generations: createGenerations(),
    servedAgain: {count() {}, report() {}},
    files: {
      open: async () => {
        throw new Error('this server has no store');
      },
    },
    ...door,
    hasAdminListener: false,
    pseudonym: 'test',
    limits,
    preparedBytes: 2 ** 20,
    keySecret: 'secret',
    clock,
    events,
  });
  const listener = createListener({
    app,
    address: {host: '127.0.0.1', port: 0},
    isShared: false,
    tls: undefined,
    entrance: entranceOf({}),
    sendTimeout: 60_000,
    limits,
    clock,
    events,
  });
  const address = await listener.listen();
  const port = 'port' in address ? address.port : 0;
  t.teardown(() => listener.close(0));
  return {port, clock, requests, faults};
}

/** The same for the verbs that write; the others are not there. */
export function startPushServer(
  t: Lifetime,
  push: Partial<Push>,
  clock = createMovableClock(),
): Promise<HttpServer> {
  const unexpected = (verb: string) => async () => {
    throw new Error(`unexpected call of ${verb}`);
  };
  const local: Push = {
    begin: unexpected('begin'),
    state: unexpected('state'),
    append: unexpected('append'),
    finish: unexpected('finish'),
    cancel: unexpected('cancel'),
    putManifest: unexpected('putManifest'),
    deleteManifest: unexpected('deleteManifest'),
    deleteBlob: unexpected('deleteBlob'),
    ...push,
  };
  const verbs = {push: createPush({local, through: local, store: {check: async () => {}}})} as Verbs;
  return startHttpServer(t, {verbs, clock});
}

interface ReceivedAnswer {
  status: number;
  headers: IncomingHttpHeaders;
  body: Buffer;
}

/** Sends one request, on a connection of its own, and reads the whole answer. */
export const ask = (
  port: number,
  method: string,
  path: string,
  body?: Buffer,
  headers = {},
): Promise<ReceivedAnswer> =>
  new Promise((resolve, reject) => {
    const options = {host: '127.0.0.1', port, method, path, headers, agent: false};
    const asked = request(options, async (message) => {
      const {statusCode: status = 0, headers: received} = message;
      resolve({status, headers: received, body: Buffer.concat(await message.toArray())});
    });
    asked.once('error', reject);
    asked.end(body);
  });
