import {access} from 'node:fs/promises';
import {homedir} from 'node:os';
import {join} from 'node:path';
import type {RegistryOptions} from '../library.ts';
import {isDigest} from '../oci/digest.ts';
import {isRepositoryName, isTag} from '../oci/name.ts';

/** A manifest in a repository or an image layout, as a command line names it. */
export interface ArtifactReference {
  /** For `openTarget`. */
  target: string;
  /** A tag or a digest. */
  reference: string;
}

const SYNTAX = 'write host/name:tag, host/name@digest, oci:path:tag or oci:path@digest';

/**
 * Parses `host/name:tag`, `host/name@digest`, `oci:path:tag` or `oci:path@digest`.
 * @returns the reference, or what is wrong with the text.
 */
export function parseArtifactReference(text: string): ArtifactReference | string {
  const scheme = text.startsWith('oci:') ? 'oci:' : 'docker://';
  const rest = text.startsWith(scheme) ? text.slice(scheme.length) : text;
  const at = rest.lastIndexOf('@');
  const [place, reference] = isDigest(rest.slice(at + 1))
    ? [rest.slice(0, Math.max(at, 0)), rest.slice(at + 1)]
    : splitTag(rest);
  if (place === '' || reference === '') return `"${text}" has no tag or digest: ${SYNTAX}.`;
  if (scheme === 'oci:') return {target: `oci:${place}`, reference};
  // In host/name:tag@digest the digest counts.
  const [name] = splitTag(place);
  const repository = name === '' ? place : name;
  const slash = repository.indexOf('/');
  if (!isHost(repository.slice(0, Math.max(slash, 0))) || !isRepositoryName(repository.slice(slash + 1))) {
    return `"${text}" does not name a repository of a registry: ${SYNTAX}, such as docker.io/library/alpine:3.`;
  }
  return {target: `docker://${repository}`, reference};
}

/** Splits `place:tag`; both parts are empty when there is no tag at the end. */
function splitTag(text: string): [string, string] {
  const colon = text.lastIndexOf(':');
  const tag = text.slice(colon + 1);
  return colon > 0 && isTag(tag) ? [text.slice(0, colon), tag] : ['', ''];
}

/** Docker distinguishes hosts from path components in this way. */
const isHost = (text: string): boolean => /[.:]/.test(text) || text === 'localhost';

const dockerConfig = (env: NodeJS.ProcessEnv): string =>
  join(env['DOCKER_CONFIG'] || join(env['HOME'] || homedir(), '.docker'), 'config.json');

const LOOPBACK = /^docker:\/\/(?:localhost|127(?:\.\d+){3}|\[::1\])(?::\d+)?\//;

/** Docker also speaks plain HTTP to these: no certificate is issued for such a name. */
const isLoopback = (target: string): boolean => LOOPBACK.test(target);

/**
 * Decides how a command reaches the registry of a target.
 * @param plainHttp the value of `--plain-http`; loopback addresses imply it.
 * @param env where Docker's configuration is found: the credentials of `docker login` are used if there are any.
 */
export async function registryAccess(
  target: string,
  {plainHttp = isLoopback(target)}: {plainHttp?: boolean},
  env: NodeJS.ProcessEnv,
): Promise<RegistryOptions> {
  const path = dockerConfig(env);
  const exists = await access(path).then(
    () => true,
    () => false,
  );
  return {plainHttp, ...(exists ? {credentials: {kind: 'docker-config', path}} : {})};
}

/** The message of an error, with hints for a command that has no configuration file. */
export function explain(error: unknown, env: NodeJS.ProcessEnv): string {
  const message = error instanceof Error ? error.message : String(error);
  const hints = [
    message.includes('insecure: true') ? 'With this command, use --plain-http.' : '',
    message.includes('upstream.credentials') ? `This command reads them from ${dockerConfig(env)}.` : '',
  ];
  return [message, ...hints].filter((text) => text !== '').join('\n');
}
