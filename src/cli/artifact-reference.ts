import {access} from 'node:fs/promises';
import {homedir} from 'node:os';
import {join} from 'node:path';
import type {RegistryOptions} from '../library.ts';
import {isDigest} from '../oci/digest.ts';
import {isRepositoryName, isTag} from '../oci/name.ts';

/** What a command is told to work on. */
export interface ArtifactReference {
  /** As `openTarget` takes it. */
  target: string;
  /** A tag or a digest. */
  reference: string;
}

const SYNTAX = 'write host/name:tag, host/name@digest, oci:path:tag or oci:path@digest';

/**
 * Reads `host/name:tag`, `host/name@digest`, `oci:path:tag` or `oci:path@digest`.
 * @returns the reference, or what is wrong with the text.
 */
export function parseArtifactReference(text: string): ArtifactReference | string {
  const scheme = text.startsWith('oci:') ? 'oci:' : 'docker://';
  const rest = text.startsWith(scheme) ? text.slice(scheme.length) : text;
  const at = rest.lastIndexOf('@');
  const [place, reference] = isDigest(rest.slice(at + 1))
    ? [rest.slice(0, Math.max(at, 0)), rest.slice(at + 1)]
    : splitTag(rest);
  if (place === '' || reference === '') return `"${text}" names no tag and no digest: ${SYNTAX}.`;
  if (scheme === 'oci:') return {target: `oci:${place}`, reference};
  // Of host/name:tag@digest the digest says what is meant.
  const [name] = splitTag(place);
  const repository = name === '' ? place : name;
  const slash = repository.indexOf('/');
  if (!isHost(repository.slice(0, Math.max(slash, 0))) || !isRepositoryName(repository.slice(slash + 1))) {
    return `"${text}" names no repository of a registry: ${SYNTAX}, such as docker.io/library/alpine:3.`;
  }
  return {target: `docker://${repository}`, reference};
}

/** `place:tag` in two; both empty when there is no tag at the end. */
function splitTag(text: string): [string, string] {
  const colon = text.lastIndexOf(':');
  const tag = text.slice(colon + 1);
  return colon > 0 && isTag(tag) ? [text.slice(0, colon), tag] : ['', ''];
}

/** As Docker tells hosts from first path components. */
const isHost = (text: string): boolean => /[.:]/.test(text) || text === 'localhost';

const dockerConfig = (env: NodeJS.ProcessEnv): string =>
  join(env['DOCKER_CONFIG'] || join(env['HOME'] || homedir(), '.docker'), 'config.json');

const LOOPBACK = /^docker:\/\/(?:localhost|127(?:\.\d+){3}|\[::1\])(?::\d+)?\//;

/** As Docker does: a registry of this machine, which has no certificate for such a name. */
const isLoopback = (target: string): boolean => LOOPBACK.test(target);

/** How a command speaks to the registry of a target: in plain HTTP where that is asked for or natural, and with what `docker login` keeps, where there is something. */
export async function registryAccess(
  target: string,
  {plainHttp = isLoopback(target)}: {plainHttp?: boolean},
  env: NodeJS.ProcessEnv,
): Promise<RegistryOptions> {
  const path = dockerConfig(env);
  const isThere = await access(path).then(
    () => true,
    () => false,
  );
  return {plainHttp, ...(isThere ? {credentials: {kind: 'docker-config', path}} : {})};
}

/** What failed, in the words of a command that has no configuration file. */
export function explain(error: unknown, env: NodeJS.ProcessEnv): string {
  const message = error instanceof Error ? error.message : String(error);
  const hints = [
    message.includes('insecure: true') ? 'For this command that is --plain-http.' : '',
    message.includes('upstream.credentials') ? `This command takes them from ${dockerConfig(env)}.` : '',
  ];
  return [message, ...hints].filter((text) => text !== '').join('\n');
}
