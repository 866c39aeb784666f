import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {UpstreamConfig} from '../../config.ts';
import {UpstreamFailure} from '../port.ts';
import {readDockerConfig} from './docker-config.ts';
import type {Login} from './login.ts';

export interface Credentials {
  /** Whether any are configured. Whether a configured file has an entry for this host is known only after `read`. */
  readonly configured: boolean;
  /**
   * The current login: the configured one for every caller, or the caller's own. undefined for anonymous.
   * @throws UpstreamFailure `credentials` when the configured source cannot be read.
   */
  read(caller: Pick<Caller, 'login'>): Promise<Login | undefined>;
  /** They were refused: read the source again next time. */
  forget(): void;
}

/** How long a file's or helper's answer is used: short enough to notice a rotated secret, long enough for a burst. */
const CACHE_MS = 5000;

/** @param host the upstream's host, with its port if it has one. */
export function createCredentials(
  config: UpstreamConfig['credentials'],
  host: string,
  clock: Clock,
  env: NodeJS.ProcessEnv,
): Credentials {
  if (config?.kind === 'passthrough') return ownCredentials(host);
  let last: {login: Promise<Login | undefined>; readAt: number} | undefined;

  const load = async (): Promise<Login | undefined> => {
    if (!config) return undefined;
    if (config.kind === 'basic') return config;
    try {
      return await readDockerConfig(config.path, host, env);
    } catch (error) {
      const fault = error instanceof Error ? error.message : String(error);
      const reason = `upstream.credentials: the file ${config.path} ${fault}`;
      throw new UpstreamFailure('credentials', host, reason);
    }
  };

  return {
    configured: config !== undefined,
    read() {
      if (!last || clock.monotonic() - last.readAt >= CACHE_MS)
        last = {login: load(), readAt: clock.monotonic()};
      return last.login;
    },
    forget() {
      last = undefined;
    },
  };
}

/** The callers' own: one that presents none is anonymous to the upstream. */
const ownCredentials = (host: string): Credentials => ({
  configured: true,
  async read({login}) {
    const own = login?.for(host);
    return own && {kind: 'basic', ...own};
  },
  forget() {},
});
