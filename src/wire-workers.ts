import type {EventEmitter} from 'node:events';
import {availableParallelism} from 'node:os';
import type {Clock} from './clock.ts';
import type {Config} from './config.ts';
import type {Events} from './events.ts';
import {canSharePorts, type NetworkAddress} from './http/accept.ts';
import type {FileRuns} from './http/file-runs.ts';
import type {Limits} from './http/limits.ts';
import type {PreparedReplay} from './http/prepared-reports.ts';
import {type Address, canShare, type Listeners} from './listeners.ts';
import type {Generations} from './registry/generations.ts';
import type {Happening, WorkerListenerSettings} from './workers/messages.ts';
import {createWorkers, type Workers} from './workers/workers.ts';

/** The workers of a server, beside the thread that owns everything. */
export interface ServerWorkers extends Pick<Workers, 'replaceHeaders' | 'forget' | 'report' | 'close'> {
  /** Starts them where the server listens. @throws what keeps one of them from listening */
  start(addresses: readonly Address[]): Promise<void>;
}

export interface ServerWorkersParts {
  config: Config;
  /** How many threads answer requests, the owner included. */
  count: number;
  /** Bytes that each may take for prepared answers. */
  preparedBytes: number;
  /** That of the owner's requests. */
  keySecret: string;
  listeners: Listeners;
  generations: Generations;
  limits: Limits;
  /** Counts and reports what workers have answered. */
  replay: PreparedReplay;
  /** Decides about what they answer from files. */
  runs: FileRuns;
  /** Bytes of memory that each reads files into. */
  readBytes: number;
  /** The program of their threads; default the one that belongs to the server. */
  program: URL | undefined;
  clock: Clock;
  events: Events;
}

/** More threads than this would wait for the one that owns everything else. */
const MAX_AUTOMATIC = 8;

/** How the connections to a server are shared. */
export interface Sharing {
  /** Whether several sockets can listen on a port. */
  isShared: boolean;
  /** How many threads answer requests, the owner included. */
  count: number;
}

export async function planSharing({workers, listen}: Config, events: Events): Promise<Sharing> {
  const isShared = await canSharePorts();
  const count = workers === 'auto' ? Math.min(availableParallelism(), MAX_AUTOMATIC) : workers;
  if (count === 1 || !listen.some(canShare)) return {isShared, count: 1};
  if (!isShared) events.emit('workers.unavailable', {count});
  return {isShared, count: isShared ? count : 1};
}

export function createServerWorkers(parts: ServerWorkersParts): ServerWorkers {
  const {config, count, preparedBytes, readBytes, keySecret, listeners, generations} = parts;
  const {limits, clock, events} = parts;
  const workers = createWorkers({
    listener(number) {
      const listener = listeners.all[number];
      if (!listener) throw new Error(`a worker has a listener ${number}, which does not exist`);
      return listener;
    },
    happened: createReplay(parts),
    runs: parts.runs,
    program: parts.program,
    clock,
    events,
  });
  return {
    replaceHeaders: (headers) => workers.replaceHeaders(headers),
    forget: (path) => workers.forget(path),
    report: () => workers.report(),
    close: (grace) => workers.close(grace),
    async start(addresses) {
      await workers.start(count - 1, {
        listeners: config.listen.flatMap((listener, number): WorkerListenerSettings[] => {
          const {tls, sendTimeout} = listener;
          const address = networkAddress(addresses[number]);
          return address && canShare(listener) ? [{number, address, tls, sendTimeout}] : [];
        }),
        slots: generations.slots,
        preparedBytes,
        files: {path: config.storage.blobs.path, readBytes},
        keySecret,
        headers: limits.settings.headers,
        times: clock.times,
        heard: watchHearers(events),
      });
    },
  };
}

/** Counts and reports what happened in a worker as if it had happened here. */
function createReplay({replay, events}: ServerWorkersParts): (happening: Happening) => void {
  return (happening) => {
    if ('given' in happening) replay.one(happening.given);
    else if ('counted' in happening) replay.all(happening.counted);
    else events.emit(happening.event, ...(happening.args as never));
  };
}

/** Whether somebody hears of each request, as a number that all threads can read: 0 for nobody. */
function watchHearers(events: Events): Int32Array<SharedArrayBuffer> {
  const heard = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  const count = () => events.listenerCount('request.start') + events.listenerCount('request.end');
  const names: readonly unknown[] = ['request.start', 'request.end'];
  const emitter = events as EventEmitter;
  heard[0] = count();
  // A listener is added after its event, and removed before its own.
  emitter.on('newListener', (name) => names.includes(name) && Atomics.add(heard, 0, 1));
  emitter.on('removeListener', (name) => names.includes(name) && Atomics.store(heard, 0, count()));
  return heard;
}

const networkAddress = (address: Address | undefined): NetworkAddress | undefined =>
  address?.host === undefined || address.port === undefined
    ? undefined
    : {host: address.host, port: address.port};
