import {networkInterfaces} from 'node:os';
import {setTimeout as delay} from 'node:timers/promises';
import {systemClock} from '../clock.ts';
import {configWarnings} from '../config/checks.ts';
import type {Config} from '../config.ts';
import {createLog, type Log, logEvents} from '../observe/log.ts';
import {banner, listeningText, type Running} from './banner.ts';
import {type ConfigOptions, FAULTY, loadConfiguration} from './configuration.ts';
import {folderFault, listenFault, surviveFaults} from './faults.ts';
import {reloadConfiguration} from './reload.ts';
import {listenToSignals} from './signals.ts';

/** Milliseconds that a server may take beyond its grace period before it is left behind. */
const LEEWAY = 2000;

const hasColors = (): boolean => process.stdout.isTTY === true && process.stdout.hasColors();
const write = (text: string): void => void process.stdout.write(text);

/**
 * `backref serve`: serves until SIGTERM or SIGINT, then lets requests under way end within the grace period; a second
 * signal ends the process at once. A SIGHUP reloads the configuration.
 * @returns the exit code: 0 after a stop, 1 when the server cannot start, 2 when its configuration has faults.
 */
export async function serve(options: ConfigOptions & {version: string; json?: boolean}): Promise<number> {
  const loaded = await loadConfiguration(options);
  if (!loaded) return FAULTY;
  const {source} = loaded;
  const config = loggingAsAsked(loaded.config, options);
  const unwritable = await folderFault(config);
  if (unwritable) return failed(unwritable);

  const signals = listenToSignals();
  const openLog = (config: Config) =>
    createLog(config.log, {write, now: systemClock.now, colors: hasColors()});
  let inForce = config;
  let log = await openLog(config);
  const {createServer} = await import('../server.ts');
  const server = createServer(config);
  logEvents(server.events, (entry) => log(entry));
  try {
    const address = await server.listen();
    surviveFaults(server.events);
    const {version} = options;
    const {pid} = process;
    announce({version, config, source, address, pid, interfaces: networkInterfaces()}, log);
    logWarnings(config, log);
  } catch (error) {
    await server.close().catch(() => {});
    return failed(listenFault(error, config));
  }

  const reloadEach = async () => {
    for await (const _ of signals.reload) {
      const reloaded = await reloadConfiguration(options, server, log);
      if (!reloaded) continue;
      inForce = loggingAsAsked(reloaded.config, options);
      log = await openLog(inForce);
      logWarnings({...inForce, listen: config.listen}, log);
    }
  };
  void reloadEach();
  const signal = await signals.stop;
  log({level: 'info', event: 'server.stopping', text: `${signal}: finishing what runs`, facts: {signal}});
  await Promise.race([server.close(), delay(inForce.shutdown.grace + LEEWAY)]);
  return 0;
}

/** `--json` goes before `log.format`. */
const loggingAsAsked = (config: Config, {json = false}: {json?: boolean}): Config =>
  json ? {...config, log: {...config.log, format: 'json'}} : config;

/** Tells a person, or the log, that the server listens. */
function announce(running: Running, log: Log): void {
  const {config, address, source, pid} = running;
  if (config.log.format === 'pretty') write(`${banner(running)}\n`);
  else
    log({
      level: 'info',
      event: 'server.listening',
      text: `listens on ${listeningText(address)}`,
      facts: {...address, source, pid},
    });
}

function logWarnings(config: Config, log: Log): void {
  for (const {path: setting, problem} of configWarnings(config))
    log({level: 'warn', event: 'config.warning', text: `${setting}: ${problem}`, facts: {setting, problem}});
}

function failed(problem: string): number {
  process.stderr.write(`${problem}\n`);
  return 1;
}
