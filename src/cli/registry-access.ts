import {access} from 'node:fs/promises';
import {homedir} from 'node:os';
import {join} from 'node:path';
import type {RegistryOptions} from '../artifacts.ts';

const dockerConfig = (env: NodeJS.ProcessEnv): string =>
  join(env['DOCKER_CONFIG'] || join(env['HOME'] || homedir(), '.docker'), 'config.json');

/** How a command speaks to a registry: with what `docker login` keeps, where there is something. */
export async function registryAccess(
  {plainHttp = false}: {plainHttp?: boolean},
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
