import {type ConfigOptions, FAULTY, loadConfiguration} from './configuration.ts';

/** Milliseconds that a healthy server needs at most to answer. */
const PATIENCE = 3000;

/**
 * `backref health`: asks `GET /v2/` of the server that listens where this configuration says.
 * @returns the exit code: 0 when it answers without a fault of its own, else 1.
 */
export async function health(options: ConfigOptions): Promise<number> {
  const loaded = await loadConfiguration(options);
  if (!loaded) return FAULTY;
  const {host, port} = loaded.config.listen;
  const url = `http://${reachable(host)}:${port}/v2/`;
  try {
    const {status} = await fetch(url, {signal: AbortSignal.timeout(PATIENCE), redirect: 'manual'});
    if (status < 500) return 0;
    process.stderr.write(`${url} answers ${status}\n`);
  } catch (error) {
    const {cause} = error instanceof Error ? error : {cause: undefined};
    process.stderr.write(
      `${url} does not answer: ${cause instanceof Error ? cause.message : String(error)}\n`,
    );
  }
  return 1;
}

/** A server that listens on every address is asked on this machine's own. */
function reachable(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1';
  if (host === '::') return '[::1]';
  return host.includes(':') ? `[${host}]` : host;
}
