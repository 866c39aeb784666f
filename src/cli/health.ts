import {isEveryAddress} from '../config/host.ts';
import {type ConfigOptions, FAULTY, loadConfiguration} from './configuration.ts';
import {failed} from './report.ts';

/** Within which a server that is well answers. */
const TIMEOUT_MS = 3000;

/**
 * `backref health`: asks `GET /readyz` of the server that listens where this configuration says.
 * @returns the exit code: 0 when it is ready, else 1, also when something else than a backref answers; 2 when the
 * configuration is faulty. With `--json` either is an object on stdout.
 */
export async function health(options: ConfigOptions & {json?: boolean}): Promise<number> {
  const loaded = await loadConfiguration(options);
  if (!loaded) return FAULTY;
  const {host, port} = loaded.config.listen;
  const url = `http://${reachable(host)}:${port}/readyz`;
  const problem = await problemAt(url).catch((error: unknown) => `does not answer: ${reasonOf(error)}`);
  if (problem !== undefined) return failed(`${url} ${problem}`, options);
  if (options.json) process.stdout.write(`${JSON.stringify({result: {url, ready: true}})}\n`);
  return 0;
}

/** What is wrong with the server at a URL; undefined when it is a backref that is ready. */
async function problemAt(url: string): Promise<string | undefined> {
  const response = await fetch(url, {signal: AbortSignal.timeout(TIMEOUT_MS), redirect: 'manual'});
  const {server, problems} = readReport(await response.text());
  if (server !== 'backref')
    return `is answered by something else than backref (status ${response.status}): see what listens there, or name the server's configuration with --config`;
  return response.status === 200
    ? undefined
    : `is not ready: ${Array.isArray(problems) ? problems.join('; ') : 'it does not say why'}`;
}

function readReport(text: string): {server?: unknown; problems?: unknown} {
  try {
    const report: unknown = JSON.parse(text);
    return typeof report === 'object' && report !== null ? report : {};
  } catch {
    return {};
  }
}

/** fetch tells what happened in the cause alone. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? error.cause.message : error.message;
}

/** A server that listens on every address is asked on this machine's own. */
function reachable(host: string): string {
  if (isEveryAddress(host)) return host === '::' ? '[::1]' : '127.0.0.1';
  return host.includes(':') ? `[${host}]` : host;
}
