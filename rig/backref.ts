import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {ownPort} from './port.ts';
import {answers, ready, type Scope, type Started} from './scope.ts';

/** The two ways to run it: from the sources as `npm start` does, and as it is published, after `npm run build`. */
export const SOURCES = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url));
export const BUILT = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));

/** The flags of `npm start` and of the container image. */
export const NODE_FLAGS = ['--max-semi-space-size=4'];

export interface BackrefProcessOptions {
  /** `SOURCES` or `BUILT`. */
  main: string;
  /** `http://host:port` of the registry behind it, served as `docker.io` and as the default. */
  upstream: string;
  /** Its cache; a later server may use it again. */
  folder: string;
  /** The lifetime of tags and lists of referrers, in the configuration's form: `1h`. */
  ttl: string;
  /** As in the configuration; its default when missing. */
  prefetch?: 'manifests' | 'all';
  /** The time limit for the upstream's response headers, including retries: `1s` when the upstream fails permanently. */
  headersTimeout?: string;
  /** The command to run it under, e.g. `taskset`. */
  prefix?: readonly string[];
  /** More sections of the configuration. */
  settings?: Record<string, unknown>;
  /** More flags of Node. */
  flags?: readonly string[];
  /** Default this process's. */
  env?: NodeJS.ProcessEnv;
}

export interface RunningBackref {
  url: string;
  /** `host:port` */
  host: string;
  /** Its configuration file. */
  file: string;
  process: Started;
}

/** Starts backref as a mirror of one registry. @throws Error with its output when it does not get ready. */
export const startBackref = (
  scope: Scope,
  {upstream, ttl, prefetch, headersTimeout, ...options}: BackrefProcessOptions,
): Promise<RunningBackref> =>
  serveRegistries(scope, {
    ...options,
    registries: {
      'docker.io': {
        default: true,
        library: true,
        upstream: {
          url: upstream,
          insecure: true,
          ...(headersTimeout ? {timeouts: {headers: headersTimeout}} : {}),
        },
        tags: {ttl, maxStale: '7d'},
        referrers: {ttl, ...(prefetch ? {prefetch} : {})},
        push: 'deny',
      },
    },
  });

export interface ServeOptions
  extends Pick<BackrefProcessOptions, 'main' | 'folder' | 'prefix' | 'settings' | 'flags' | 'env'> {
  /** As in the configuration. */
  registries: Record<string, unknown>;
  /** Default a free one. */
  port?: number;
  /** Called as soon as there is a process, before it is ready. */
  started?(running: RunningBackref): void;
}

/**
 * Starts backref as users do: the command, with a configuration file.
 * @throws Error with its output when it does not get ready.
 */
export async function serveRegistries(
  scope: Scope,
  {
    main,
    folder,
    registries,
    settings = {},
    port: wanted,
    flags = [],
    env,
    started,
    prefix = [],
  }: ServeOptions,
): Promise<RunningBackref> {
  const port = wanted ?? (await ownPort());
  const host = `127.0.0.1:${port}`;
  const file = join(scope.folder, `backref-${port}.yaml`);
  const config = {
    listen: {host: '127.0.0.1', port},
    storage: {path: folder},
    log: {level: 'warn'},
    ...settings,
    registries,
  };
  await writeFile(file, JSON.stringify(config)); // JSON is YAML.
  const [command = '', ...args] = [
    ...prefix,
    process.execPath,
    ...NODE_FLAGS,
    ...flags,
    main,
    'serve',
    '--config',
    file,
  ];
  const process_ = scope.start(command, args, env ? {env} : {});
  const running = {url: `http://${host}`, host, file, process: process_};
  started?.(running);
  await ready(process_, 'backref', answers(`http://${host}/healthz`));
  return running;
}
