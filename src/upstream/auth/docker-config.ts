import {execFile} from 'node:child_process';
import {readFile} from 'node:fs/promises';
import * as z from 'zod';
import {errorCode} from '../../error-code.ts';
import type {Login} from './login.ts';

/** Docker's key for Docker Hub, in `auths` and for credential helpers. */
const DOCKER_HUB = 'https://index.docker.io/v1/';
const DOCKER_HUB_HOSTS = new Set(['docker.io', 'index.docker.io', 'registry-1.docker.io']);
/** A helper's output, with exit code 1, when it has no credentials for the registry. */
const NOT_FOUND = 'credentials not found in native keychain';
const HELPER_TIMEOUT_MS = 10_000;

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
type AuthEntry = z.infer<typeof auth>;

/** The host of a key such as `ghcr.io`, `https://ghcr.io` or `https://ghcr.io/v1/`. */
const hostOfKey = (key: string): string => key.replace(/^https?:\/\//, '').split('/', 1)[0] ?? '';

function entryFor<T>(entries: Record<string, T>, keys: readonly string[]): T | undefined {
  const exact = keys.find((key) => Object.hasOwn(entries, key));
  if (exact !== undefined) return entries[exact];
  return Object.entries(entries).find(([key]) => keys.includes(hostOfKey(key)))?.[1];
}

function loginOf({auth: encoded, username, password, identitytoken}: AuthEntry): Login | undefined {
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
    throw new Error(`names a credential helper "${name}", which is not a valid program name`);
  const program = `docker-credential-${name}`;
  return new Promise((resolve, reject) => {
    const child = execFile(program, ['get'], {env, timeout: HELPER_TIMEOUT_MS}, (error, stdout) => {
      if (error && stdout.includes(NOT_FOUND)) return resolve(undefined);
      if (error) {
        const reason = error.code === 'ENOENT' ? 'is not in PATH' : `failed (${error.code ?? error.signal})`;
        return reject(new Error(`names the credential helper ${program}, which ${reason}`));
      }
      const answer = helperAnswer.safeParse(parseJson(stdout));
      if (!answer.success)
        return reject(
          new Error(`names the credential helper ${program}, which did not print valid credentials`),
        );
      const {Username: username, Secret: secret} = answer.data;
      resolve(
        username === '<token>'
          ? {kind: 'identity-token', token: secret}
          : {kind: 'basic', username, password: secret},
      );
    });
    // A helper that is missing, or does not read its input, is reported by the callback above.
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
 * Finds a registry's login in a Docker `config.json`: first from the host's own credential helper, then from the
 * general credential store, then from `auths`, in the order of Docker's client.
 * @param host the upstream's host, with its port if it has one.
 * @throws an Error whose message continues the sentence "the file …".
 */
export async function readDockerConfig(
  path: string,
  host: string,
  env: NodeJS.ProcessEnv,
): Promise<Login | undefined> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new Error(`cannot be read (${errorCode(error)})`);
  });
  const config = dockerConfig.safeParse(parseJson(text));
  if (!config.success) throw new Error('is not a Docker config.json');
  const {auths, credHelpers, credsStore} = config.data;

  const keys = DOCKER_HUB_HOSTS.has(host) ? [DOCKER_HUB, ...DOCKER_HUB_HOSTS] : [host];
  const server = keys[0] ?? host;
  const helper = entryFor(credHelpers, keys) ?? credsStore;
  const helped = helper ? await askHelper(helper, server, env) : undefined;
  if (helped) return helped;
  const entry = entryFor(auths, keys);
  return entry && loginOf(entry);
}
