import type {Clock} from '../../clock.ts';
import type {CredentialsConfig} from '../../config.ts';
import {UpstreamFailure} from '../port.ts';
import {readDockerConfig} from './docker-config.ts';
import type {Login} from './login.ts';

export interface Credentials {
  /** Are any configured? Which, and whether the file has some for this host, shows at use. */
  readonly configured: boolean;
  /**
   * The login of the moment; undefined for anonymous.
   * @throws UpstreamFailure `credentials` when the configured source cannot be read.
   */
  read(): Promise<Login | undefined>;
  /** They were refused: look at the source again next time. */
  forget(): void;
}

/** Milliseconds for which a file or a helper is not asked again: a rotated secret is seen soon, a busy start asks once. */
const REMEMBERED = 5000;

/** @param host the upstream's host, with its port if it has one. */
export function createCredentials(
  config: CredentialsConfig | undefined,
  host: string,
  clock: Clock,
  env: NodeJS.ProcessEnv,
): Credentials {
  let last: {login: Promise<Login | undefined>; readAt: number} | undefined;

  const load = async (): Promise<Login | undefined> => {
    if (!config) return undefined;
    if (config.kind === 'basic') return config;
    try {
      return await readDockerConfig(config.path, host, env);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new UpstreamFailure(
        'credentials',
        host,
        `upstream.credentials: the file ${config.path} ${reason}`,
      );
    }
  };

  return {
    configured: config !== undefined,
    read() {
      if (!last || clock.monotonic() - last.readAt >= REMEMBERED)
        last = {login: load(), readAt: clock.monotonic()};
      return last.login;
    },
    forget() {
      last = undefined;
    },
  };
}
