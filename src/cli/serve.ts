import {networkInterfaces} from 'node:os';
import {setTimeout as delay} from 'node:timers/promises';
import {systemClock} from '../clock.ts';
import {configWarnings} from '../config/checks.ts';
import type {Config} from '../config.ts';
import {type AuditLog, createAuditLog} from '../observe/audit.ts';
import {createLog, type Log, logEvents} from '../observe/log.ts';
import type {BackrefServer} from '../server.ts';
import {banner, listeningText, type ServerInfo} from './banner.ts';
import {type ConfigOptions, loadConfiguration} from './configuration.ts';
import {folderFault, listenFault, surviveFaults} from './faults.ts';
import {logWarning, reloadConfiguration} from './reload.ts';
import {type CommandIo, failed} from './report.ts';
import {listenToSignals} from './signals.ts';

/** How long a stop may take beyond the grace period before the process ends anyway. */
const STOP_MARGIN_MS = 2000;

/**
 * `backref serve`: serves until SIGTERM or SIGINT, then lets running requests end within the grace period. A second
 * signal ends the process at once. SIGHUP reloads the configuration. With `json`, errors are objects on stdout and so is
 * each line of the log.
 * @returns the exit code: 0 after a stop, 1 when the server cannot start, 2 for a faulty configuration.
 */
export async function serve(
  options: ConfigOptions & {version: string; json?: boolean},
  io: CommandIo,
): Promise<number> {
  const loaded = await loadConfiguration(options, io);
  if (typeof loaded === 'number') return loaded;
  const {source} = loaded;
  const config = withLogFormat(loaded.config, options);
  const unwritable = await folderFault(config);
  if (unwritable) return failed(unwritable, options, io);

  const signals = listenToSignals();
  let current = config;
  let log = await openLog(config, io);
  const {createServer} = await import('../server.ts');
  const server = createServer(config, {env: io.env});
  let stopLogging = logEvents(server.events, log, config.log.level);
  let audit = openAudit(config, server, io);
  try {
    await server.listen();
    surviveFaults(server.events);
    const {version} = options;
    const {pid} = process;
    const {addresses} = server;
    announce({version, config, source, addresses, pid, interfaces: networkInterfaces()}, log, io);
    logWarnings(config, log);
  } catch (error) {
    await server.close().catch(() => {});
    await audit.close();
    return failed(listenFault(error, config), options, io);
  }

  const reloadOnSignals = async () => {
    for await (const _ of signals.reload) {
      const reloaded = await reloadConfiguration(options, io, server, log);
      if (!reloaded) continue;
      current = withLogFormat(reloaded.config, options);
      log = await openLog(current, io);
      stopLogging();
      stopLogging = logEvents(server.events, log, current.log.level);
      const previous = audit;
      audit = openAudit(current, server, io);
      // Takes nothing more from now on; a disk that hangs holds up no reload.
      void previous.close();
      logWarnings({...current, listen: config.listen}, log);
    }
  };
  void reloadOnSignals();
  const signal = await signals.stop;
  log({level: 'info', event: 'server.stopping', text: `${signal}: finishing requests`, facts: {signal}});
  await Promise.race([
    server.close().then(() => audit.close()),
    delay(current.shutdown.grace + STOP_MARGIN_MS),
  ]);
  return 0;
}

/** `--json` overrides `log.format`. */
const withLogFormat = (config: Config, {json = false}: {json?: boolean}): Config =>
  json ? {...config, log: {...config.log, format: 'json'}} : config;

const openLog = ({log}: Config, {stdout}: CommandIo): Promise<Log> =>
  createLog(log, {
    write: (text) => void stdout.write(text),
    now: systemClock.now,
    colors: stdout.isTTY === true && stdout.hasColors?.() === true,
  });

/** Opened anew by a reload, also so that another program may have moved the file away. */
const openAudit = ({audit}: Config, {events}: BackrefServer, {stdout}: CommandIo): AuditLog =>
  createAuditLog(audit, {events, clock: systemClock, print: (line) => void stdout.write(line)});

/** Reports that the server listens: to a person with a banner, else in the log. */
function announce(info: ServerInfo, log: Log, {stdout}: CommandIo): void {
  const {config, addresses, source, pid} = info;
  if (config.log.format === 'pretty') stdout.write(`${banner(info)}\n`);
  else
    for (const address of addresses)
      log({
        level: 'info',
        event: 'server.listening',
        text: `listens on ${listeningText(address)}`,
        facts: {...address, source, pid},
      });
}

function logWarnings(config: Config, log: Log): void {
  for (const {path: setting, problem} of configWarnings(config)) logWarning({setting, problem}, log);
}
