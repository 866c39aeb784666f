import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {answers, freePort, ready, type Scope, type Started} from './scope.ts';

/** The two ways to run it: from the sources as `npm start` does, and as it is published, after `npm run build`. */
export const SOURCES = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url));
export const BUILT = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));

/** How node is called by `npm start` and by the image. */
export const NODE_FLAGS = ['--max-semi-space-size=4'];

export interface BackrefOptions {
  /** `SOURCES` or `BUILT`. */
  main: string;
  /** `http://host:port` of the registry behind it, served as `docker.io` and as the default. */
  upstream: string;
  /** Its cache; a later server may go on with it. */
  folder: string;
  /** Of tags and lists of referrers, as the configuration writes it: `1h`. */
  ttl: string;
  /** As the configuration has it; its default when not given. */
  prefetch?: 'manifests' | 'all';
  /** The budget for an answer of the upstream, retries included: `1s` where it fails for good. */
  headersTimeout?: string;
  /** What to run it under, as `taskset`. */
  prefix?: readonly string[];
}

export interface RunningBackref {
  url: string;
  /** `host:port` */
  host: string;
  process: Started;
}

/** Starts backref as a mirror of one registry. @throws Error with its output when it does not get ready. */
export const startBackref = (
  scope: Scope,
  {main, upstream, folder, ttl, prefetch, headersTimeout, prefix}: BackrefOptions,
): Promise<RunningBackref> =>
  serveRegistries(scope, {
    main,
    folder,
    ...(prefix ? {prefix} : {}),
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

export interface ServeOptions extends Pick<BackrefOptions, 'main' | 'folder' | 'prefix'> {
  /** As the configuration writes them. */
  registries: Record<string, unknown>;
}

/**
 * Starts backref as users do: the command, with a file of configuration.
 * @throws Error with its output when it does not get ready.
 */
export async function serveRegistries(
  scope: Scope,
  {main, folder, registries, prefix = []}: ServeOptions,
): Promise<RunningBackref> {
  const port = await freePort();
  const host = `127.0.0.1:${port}`;
  const file = join(scope.folder, `backref-${port}.yaml`);
  const config = {
    listen: {host: '127.0.0.1', port},
    storage: {path: folder},
    log: {level: 'warn'},
    registries,
  };
  await writeFile(file, JSON.stringify(config)); // JSON is YAML.
  const [command = '', ...args] = [
    ...prefix,
    process.execPath,
    ...NODE_FLAGS,
    main,
    'serve',
    '--config',
    file,
  ];
  const started = scope.start(command, args);
  await ready(started, 'backref', answers(`http://${host}/v2/`));
  return {url: `http://${host}`, host, process: started};
}
