import {localUrl} from '../address.ts';
import {type ConfigOptions, loadConfiguration} from './configuration.ts';
import {type CommandIo, failed} from './report.ts';

/** The time in which a healthy server answers. */
const TIMEOUT_MS = 3000;

/**
 * `backref health`: sends `GET /readyz` to the server that this configuration describes. With `--json` the result or the
 * error is an object on stdout.
 * @returns the exit code: 0 when the server is ready; 1 when it is not, or when another program answers; 2 for a faulty
 * configuration.
 */
export async function health(options: ConfigOptions & {json?: boolean}, io: CommandIo): Promise<number> {
  const loaded = await loadConfiguration(options, io);
  if (typeof loaded === 'number') return loaded;
  const {host, port} = loaded.config.listen;
  const url = `${localUrl(host, port)}/readyz`;
  const problem = await problemAt(url).catch((error: unknown) => `does not answer: ${reasonOf(error)}`);
  if (problem !== undefined) return failed(`${url} ${problem}`, options, io);
  if (options.json) io.stdout.write(`${JSON.stringify({result: {url, ready: true}})}\n`);
  return 0;
}

/** @returns what is wrong with the server at this URL; undefined when it is a backref that is ready. */
async function problemAt(url: string): Promise<string | undefined> {
  const response = await fetch(url, {signal: AbortSignal.timeout(TIMEOUT_MS), redirect: 'manual'});
  const {server, problems} = readReport(await response.text());
  if (server !== 'backref')
    return `is answered by a program other than backref (status ${response.status}): check what listens there, or name the server's configuration with --config`;
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

/** The errors of fetch say what happened in their cause. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? error.cause.message : error.message;
}
