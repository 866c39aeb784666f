import {readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {setTimeout as delay} from 'node:timers/promises';
import {type RunningBackref, SOURCES, serveRegistries} from '../../rig/backref.ts';
import {buildImage, pushImage} from '../../rig/image.ts';
import {ownPort} from '../../rig/port.ts';
import type {Scope} from '../../rig/scope.ts';
import {createSurroundings, type Surroundings} from '../../rig/surroundings.ts';
import type {Toolbox} from '../../rig/tools.ts';
import {startRegistry} from '../../rig/upstreams.ts';
import {HTPASSWD, USER} from '../user.ts';
import {type Certificates, createCertificates} from './certificates.ts';
import {createExpiry, type Expiry} from './expiry.ts';
import {createTunnel, type Tunnel} from './tunnel.ts';

/** The name by which clients call the server. No DNS knows it; they reach it through the tunnel. */
export const REGISTRY = 'registry.example';
/** Only the user and her robots may pull it, and push beside it. */
export const PRIVATE = buildImage('private/app', '1', 'oci');
/** What clients push, whose content is not in the registry. */
export const OWN = buildImage('private/own', '1', 'oci');

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
/** The default of `access.tokens.ttl`. */
const TOKEN_TTL_MS = 5 * MINUTE_MS;
/** What is left of that by the client's clock, in a case that waits until it is over. */
const LEFT_MS = 2_000;
/** More than `docker login` keeps a refresh token. */
const REFRESH_TOKEN_MS = 91 * DAY_MS;
/** More than the robots of `createRobot` live. */
const ROBOT_MS = 2 * DAY_MS;

/** How long a line of the audit log may take to be written. */
const AUDIT_TIMEOUT_MS = 20_000;

/** A request as the server's audit log has it. */
export interface Audited {
  caller: string;
  method: string;
  path: string;
  repository?: string;
  status: number;
}

const basic = `Basic ${Buffer.from(`${USER.name}:${USER.password}`).toString('base64')}`;

/** What only a user who has logged in may do anything with, in a hosted registry of this name. */
const closed = (registry: string, htpasswd: string) => ({
  users: {htpasswd},
  rules: [{who: [`user:${USER.name}`, 'robot:*'], where: [`${registry}/private/**`], may: ['pull', 'push']}],
});

/**
 * Starts a backref with TLS of a private authority, on which only a user who has logged in may do anything.
 * @param registry the name of its hosted registry, and further names for it
 */
export async function startSite(
  scope: Scope,
  tools: Toolbox,
  [registry, ...aliases]: readonly [string, ...string[]] = ['apps.local'],
): Promise<Site> {
  const access = closed(registry, await writeUsers(scope));
  const site = await serve(scope, tools, {registries: {[registry]: {default: true, aliases}}, access});
  await pushImage(site.url, PRIVATE, {authorization: basic});
  return site;
}

/** The registries to which logins are passed on, by how they ask for one. */
const LOGIN_UPSTREAMS = {
  /** docker-registry asks for the login with each request. */
  async Basic(scope: Scope, tools: Toolbox): Promise<string> {
    const htpasswd = await writeUsers(scope);
    return (await startRegistry(scope, tools, 'docker-registry', {htpasswd})).url;
  },
  /** A backref has a token service. */
  async Bearer(scope: Scope): Promise<string> {
    const {url} = await serveRegistries(scope, {
      main: SOURCES,
      folder: join(scope.folder, 'upstream'),
      registries: {'apps.local': {default: true}},
      settings: {access: closed('apps.local', await writeUsers(scope))},
    });
    return url;
  },
} as const;

/** Starts a backref that has no users, in front of a registry that has, to which it passes on logins. */
export async function startPassthrough(
  scope: Scope,
  tools: Toolbox,
  challenge: keyof typeof LOGIN_UPSTREAMS,
): Promise<Site> {
  const url = await LOGIN_UPSTREAMS[challenge](scope, tools);
  await pushImage(url, PRIVATE, {authorization: basic});
  const upstream = {url, insecure: true, credentials: 'passthrough'};
  const registry = {default: true, hosts: [REGISTRY], upstream, push: 'through'};
  return serve(scope, tools, {registries: {'registry.corp.example': registry}, access: {}});
}

/** @returns the path of a file with the user */
async function writeUsers({folder}: Scope): Promise<string> {
  const htpasswd = join(folder, 'htpasswd');
  await writeFile(htpasswd, HTPASSWD);
  return htpasswd;
}

async function serve(
  scope: Scope,
  tools: Toolbox,
  {registries, access}: {registries: Record<string, unknown>; access: unknown},
): Promise<Site> {
  const certificates = await createCertificates(scope, tools, [REGISTRY]);
  const surroundings = await createSurroundings(scope);
  const audit = join(scope.folder, 'audit.log');
  const {cert, key} = certificates;
  const [port, tlsPort] = [await ownPort(), await ownPort()];
  const running = await serveRegistries(scope, {
    main: SOURCES,
    folder: join(scope.folder, 'data'),
    port,
    flags: surroundings.flags,
    env: {...process.env, ...surroundings.env},
    registries,
    settings: {
      listen: [
        {host: '127.0.0.1', port},
        {host: '127.0.0.1', port: tlsPort, tls: {cert, key}},
      ],
      access,
      audit: {to: audit},
    },
  });
  const tunnel = await createTunnel(scope);
  return new Site({scope, running, surroundings, certificates, tunnel, tlsPort, audit});
}

interface SiteParts {
  scope: Scope;
  running: RunningBackref;
  surroundings: Surroundings;
  certificates: Certificates;
  tunnel: Tunnel;
  tlsPort: number;
  /** The path of the audit log. */
  audit: string;
}

/** A running server, and what its clients need to reach it. */
export class Site {
  readonly #parts: SiteParts;
  #clockOffset = 0;
  #audited = 0;
  #robots = 0;

  constructor(parts: SiteParts) {
    this.#parts = parts;
    this.leadToServer();
  }

  /** Without TLS. */
  get url(): string {
    return this.#parts.running.url;
  }

  /** The proxy through which clients reach the server. */
  get proxy(): string {
    return this.#parts.tunnel.url;
  }

  get certificates(): Certificates {
    return this.#parts.certificates;
  }

  leadToServer(): void {
    this.leadTo(this.#parts.tlsPort);
  }

  /** Leads clients to another server of this machine, which has the same certificate. */
  leadTo(port: number): void {
    this.#parts.tunnel.lead(REGISTRY, port);
  }

  /**
   * Leads clients to a proxy that can let access tokens expire: by the clock of the server, which is slow until then, and
   * by that of the client, to which a token says when it was issued and for how long. Call it before the clock was advanced.
   * @param early milliseconds before the end of a token at which the client gets the next one
   */
  async leadToExpiry(scope: Scope, early: number): Promise<Expiry> {
    const {certificates, tlsPort: port} = this.#parts;
    await this.#setClock(LEFT_MS + early - TOKEN_TTL_MS);
    const expire = () => this.#setClock(early);
    const settings = {name: REGISTRY, certificates, port, left: LEFT_MS, expire};
    const expiry = await createExpiry(scope, settings);
    this.leadTo(expiry.port);
    return expiry;
  }

  expireAccessTokens(): Promise<void> {
    return this.#advance(TOKEN_TTL_MS);
  }

  expireRefreshTokens(): Promise<void> {
    return this.#advance(REFRESH_TOKEN_MS);
  }

  expireRobots(): Promise<void> {
    return this.#advance(ROBOT_MS);
  }

  /** An access token of the user, for these repositories. */
  async accessToken(repositories: readonly string[]): Promise<string> {
    const url = new URL('/token', this.#parts.running.url);
    for (const name of repositories) url.searchParams.append('scope', `repository:${name}:pull,push`);
    const response = await fetch(url, {headers: {authorization: basic}});
    const {token}: {token: string} = JSON.parse(await response.text());
    return token;
  }

  /** A refresh token of the user, as `docker login` gets it. */
  async refreshToken(): Promise<string> {
    const form = {
      grant_type: 'password',
      access_type: 'offline',
      username: USER.name,
      password: USER.password,
    };
    const url = new URL('/token', this.#parts.running.url);
    const response = await fetch(url, {
      method: 'POST',
      body: new URLSearchParams({...form, service: 'backref'}),
    });
    const {refresh_token: token}: {refresh_token: string} = JSON.parse(await response.text());
    return token;
  }

  /** Makes a robot. @returns its secret */
  async createRobot(): Promise<string> {
    const {scope, running} = this.#parts;
    const settings = ['--may', 'pull,push', '--on', 'apps.local/private/**', '--expires', '1d'];
    this.#robots += 1;
    const create = ['token', 'create', `ci-${this.#robots}`, ...settings, '--config', running.file, '--json'];
    const printed = await scope.run(process.execPath, [SOURCES, ...create]);
    const {result}: {result: {secret: string}} = JSON.parse(printed);
    return result.secret;
  }

  /** The requests since the last call for content and for tokens, as the server recorded them. */
  async audited(): Promise<Audited[]> {
    // Lines are written in the background, in order: when this request's is there, so are those of earlier ones.
    const marker = `/v2/marker/${this.#audited}/tags/list`;
    await fetch(`${this.#parts.running.url}${marker}`);
    const deadline = Date.now() + AUDIT_TIMEOUT_MS;
    while (Date.now() < deadline) {
      // There is no file before the first line.
      const lines = (await readFile(this.#parts.audit, 'utf8').catch(() => '')).split('\n').slice(0, -1);
      const fresh = lines.slice(this.#audited).map((line): Audited => JSON.parse(line));
      if (fresh.some(({path}) => path === marker)) {
        this.#audited = lines.length;
        return fresh.filter(({path}) => path !== marker);
      }
      await delay(10);
    }
    throw new Error(`the audit log did not get a line within ${AUDIT_TIMEOUT_MS / 1000} s`);
  }

  #advance(ms: number): Promise<void> {
    return this.#setClock(this.#clockOffset + ms);
  }

  /** @param offset milliseconds by which the server's clock differs from that of the clients */
  async #setClock(offset: number): Promise<void> {
    const {surroundings, running} = this.#parts;
    this.#clockOffset = offset;
    await surroundings.change({clockOffset: offset}, running.process);
  }
}
