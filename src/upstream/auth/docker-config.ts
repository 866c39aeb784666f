import {execFile} from 'node:child_process';
import {readFile} from 'node:fs/promises';
import {z} from 'zod';
import type {Login} from './login.ts';

/** Docker's own name for Docker Hub, in `auths` and to credential helpers. */
const DOCKER_HUB = 'https://index.docker.io/v1/';
const DOCKER_HUB_HOSTS = new Set(['docker.io', 'index.docker.io', 'registry-1.docker.io']);
/** What a helper says, with exit code 1, when it simply has nothing for the registry. */
const NOT_FOUND = 'credentials not found in native keychain';
const HELPER_TIMEOUT = 10_000;

const auth = z.object({
  auth: z.string().optional(),
  username: z.string().optional(),
  password: z.string().optional(),
  identitytoken: z.string().optional(),
});
const dockerConfig = z.object({
  auths: z.record(z.string(), auth).default({}),
  credHelpers: z.record(z.string(), z.string()).default({}),
  credsStore: z.string().optional(),
});
const helperAnswer = z.object({Username: z.string(), Secret: z.string()});
type Auth = z.infer<typeof auth>;

/** The host of a key such as `ghcr.io`, `https://ghcr.io` or `https://ghcr.io/v1/`. */
const hostOfKey = (key: string): string => key.replace(/^https?:\/\//, '').split('/', 1)[0] ?? '';

function entryFor<T>(entries: Record<string, T>, keys: readonly string[]): T | undefined {
  const exact = keys.find((key) => Object.hasOwn(entries, key));
  if (exact !== undefined) return entries[exact];
  return Object.entries(entries).find(([key]) => keys.includes(hostOfKey(key)))?.[1];
}

function loginOf({auth: encoded, username, password, identitytoken}: Auth): Login | undefined {
  if (identitytoken) return {kind: 'identity-token', token: identitytoken};
  if (username && password !== undefined) return {kind: 'basic', username, password};
  // Next to a credential store, Docker writes entries without credentials.
  if (!encoded) return undefined;
  const decoded = Buffer.from(encoded, 'base64').toString('utf8').replace(/\0+$/, '');
  const colon = decoded.indexOf(':');
  if (colon < 1) throw new Error('has an "auth" for this registry that is not the base64 of USER:PASSWORD');
  return {kind: 'basic', username: decoded.slice(0, colon), password: decoded.slice(colon + 1)};
}

/**
 * Runs `docker-credential-NAME get` (docker/docker-credential-helpers, README).
 * @returns undefined when the helper has no credentials for the server.
 * @throws an Error that names the helper; never its output, which may hold a secret.
 */
function askHelper(name: string, server: string, env: NodeJS.ProcessEnv): Promise<Login | undefined> {
  if (!/^[A-Za-z0-9._-]+$/.test(name))
    throw new Error(`names a credential helper "${name}", which is no program's name`);
  const program = `docker-credential-${name}`;
  return new Promise((resolve, reject) => {
    const child = execFile(program, ['get'], {env, timeout: HELPER_TIMEOUT}, (error, stdout) => {
      if (error && stdout.includes(NOT_FOUND)) return resolve(undefined);
      if (error) {
        const reason = error.code === 'ENOENT' ? 'is not in PATH' : `failed (${error.code ?? error.signal})`;
        return reject(new Error(`names the credential helper ${program}, which ${reason}`));
      }
      const answer = helperAnswer.safeParse(parseJson(stdout));
      if (!answer.success)
        return reject(new Error(`names the credential helper ${program}, which answered no credentials`));
      const {Username: username, Secret: secret} = answer.data;
      resolve(
        username === '<token>'
          ? {kind: 'identity-token', token: secret}
          : {kind: 'basic', username, password: secret},
      );
    });
    // A helper that is not there, or that does not read, is told of by the exit.
    child.stdin?.on('error', () => undefined).end(server);
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * What a Docker `config.json` holds for a registry: the host's own credential helper first, then the general store,
 * then `auths`, as Docker's client looks for it.
 * @param host the upstream's host, with its port if it has one.
 * @throws an Error whose message continues "the file …".
 */
export async function readDockerConfig(
  path: string,
  host: string,
  env: NodeJS.ProcessEnv,
): Promise<Login | undefined> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new Error(`cannot be read (${error.code})`);
  });
  const config = dockerConfig.safeParse(parseJson(text));
  if (!config.success) throw new Error('is no Docker config.json');
  const {auths, credHelpers, credsStore} = config.data;

  const keys = DOCKER_HUB_HOSTS.has(host) ? [DOCKER_HUB, ...DOCKER_HUB_HOSTS] : [host];
  const server = keys[0] ?? host;
  const helper = entryFor(credHelpers, keys) ?? credsStore;
  const helped = helper ? await askHelper(helper, server, env) : undefined;
  if (helped) return helped;
  const entry = entryFor(auths, keys);
  return entry && loginOf(entry);
}
