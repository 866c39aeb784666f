import {access} from 'node:fs/promises';
import {homedir} from 'node:os';
import {join} from 'node:path';
import type {RegistryOptions} from '../library.ts';

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
