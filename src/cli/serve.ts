import {constants, networkInterfaces} from 'node:os';
import {setTimeout as delay} from 'node:timers/promises';
import {systemClock} from '../clock.ts';
import {configWarnings} from '../config/warnings.ts';
import type {Config} from '../config.ts';
import {createLog, type Log, logEvents} from '../observe/log.ts';
import {banner, listeningText} from './banner.ts';
import {type ConfigOptions, FAULTY, loadConfiguration} from './configuration.ts';
import {surviveFaults} from './faults.ts';
import {folderFault, listenFault} from './start-fault.ts';

type StopSignal = 'SIGTERM' | 'SIGINT';

/** Milliseconds that a server may take beyond its grace period before it is left behind. */
const LEEWAY = 2000;

const hasColors = (): boolean => process.stdout.isTTY === true && process.stdout.hasColors();
const write = (text: string): void => void process.stdout.write(text);

/**
 * `backref serve`: serves until SIGTERM or SIGINT, then lets requests under way end within the grace period; a second
 * signal ends the process at once.
 * @returns the exit code: 0 after a stop, 1 when the server cannot start, 2 when its configuration has faults.
 */
export async function serve(options: ConfigOptions & {version: string}): Promise<number> {
  const loaded = await loadConfiguration(options);
  if (!loaded) return FAULTY;
  const {config, source} = loaded;
  const unwritable = await folderFault(config);
  if (unwritable) return failed(unwritable);

  const signal = firstSignal();
  const log = await createLog(config.log, {write, now: systemClock.now, colors: hasColors()});
  const {createServer} = await import('../server.ts');
  const server = createServer(config);
  logEvents(server.events, log);
  try {
    const address = await server.listen();
    surviveFaults(server.events);
    if (config.log.format === 'pretty')
      write(
        `${banner({version: options.version, config, source, address, interfaces: networkInterfaces()})}\n`,
      );
    else
      log({
        level: 'info',
        event: 'server.listening',
        text: `listens on ${listeningText(address)}`,
        facts: {...address, source},
      });
    logWarnings(config, log);
  } catch (error) {
    await server.close().catch(() => {});
    return failed(listenFault(error, config));
  }

  const name = await signal;
  log({level: 'info', event: 'server.stopping', text: `${name}: finishing what runs`, facts: {signal: name}});
  await Promise.race([server.close(), delay(config.shutdown.grace + LEEWAY)]);
  return 0;
}

function logWarnings(config: Config, log: Log): void {
  for (const {path: setting, problem} of configWarnings(config))
    log({level: 'warn', event: 'config.warning', text: `${setting}: ${problem}`, facts: {setting, problem}});
}

function failed(problem: string): number {
  process.stderr.write(`${problem}\n`);
  return 1;
}

/** The first signal to stop. From then on another one ends the process with the code that a shell expects. */
function firstSignal(): Promise<StopSignal> {
  return new Promise((resolve) => {
    const stop = (signal: StopSignal) => {
      resolve(signal);
      for (const next of ['SIGTERM', 'SIGINT'] as const) {
        process.off(next, stop);
        process.on(next, () => process.exit(128 + constants.signals[next]));
      }
    };
    process.on('SIGTERM', stop);
    process.on('SIGINT', stop);
  });
}
