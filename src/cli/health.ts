import {type IncomingMessage, request as requestPlainly} from 'node:http';
import {request as requestOverTls} from 'node:https';
import {text} from 'node:stream/consumers';
import {localHost, localUrl} from '../address.ts';
import type {ListenerConfig} from '../config.ts';
import {type ConfigOptions, loadConfiguration} from './configuration.ts';
import {type CommandIo, failed} from './report.ts';

/** The time in which a healthy server answers. */
const TIMEOUT_MS = 3000;

const PATH = '/readyz';

/**
 * `backref health`: sends `GET /readyz` to the server that this configuration describes, to its first listener that
 * serves registries. With `--json` the result or the
 * error is an object on stdout.
 * @returns the exit code: 0 when the server is ready; 1 when it is not, or when another program answers; 2 for a faulty
 * configuration.
 */
export async function health(options: ConfigOptions & {json?: boolean}, io: CommandIo): Promise<number> {
  const loaded = await loadConfiguration({...options, leavesKeyPairs: true}, io);
  if (typeof loaded === 'number') return loaded;
  const listener = loaded.config.listen.find(({serve}) => serve === 'main');
  if (!listener) throw new Error('no listener of the configuration serves registries');
  const url = `${localUrl(listener.address, listener.tls !== undefined)}${PATH}`;
  const problem = await problemAt(listener).catch(
    (error: unknown) => `does not answer: ${error instanceof Error ? error.message : error}`,
  );
  if (problem !== undefined) return failed(`${url} ${problem}`, options, io);
  if (options.json) io.stdout.write(`${JSON.stringify({result: {url, ready: true}})}\n`);
  return 0;
}

/** @returns what is wrong with the server of this listener; undefined when it is a backref that is ready. */
async function problemAt(listener: ListenerConfig): Promise<string | undefined> {
  const response = await ask(listener);
  const {server, problems} = readReport(await text(response));
  if (server !== 'backref')
    return `is answered by a program other than backref (status ${response.statusCode}): check what listens there, or name the server's configuration with --config`;
  return response.statusCode === 200
    ? undefined
    : `is not ready: ${Array.isArray(problems) ? problems.join('; ') : 'it does not say why'}`;
}

function ask({address, tls}: ListenerConfig): Promise<IncomingMessage> {
  const request = tls ? requestOverTls : requestPlainly;
  // This machine reaches the server by another name than those in its certificate, and sends it nothing secret.
  const options = {
    path: PATH,
    agent: false,
    rejectUnauthorized: false,
    signal: AbortSignal.timeout(TIMEOUT_MS),
  };
  const to =
    'socket' in address ? {socketPath: address.socket} : {host: localHost(address.host), port: address.port};
  return new Promise((resolve, reject) => {
    request({...options, ...to}, resolve)
      .once('error', reject)
      .end();
  });
}

function readReport(text: string): {server?: unknown; problems?: unknown} {
  try {
    const report: unknown = JSON.parse(text);
    return typeof report === 'object' && report !== null ? report : {};
  } catch {
    return {};
  }
}
