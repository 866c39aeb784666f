import type {EventEmitter} from 'node:events';
import type {Cancel, Clock} from './clock.ts';
import type {Config} from './config.ts';
import type {Events} from './events.ts';
import {canSharePorts, type NetworkAddress} from './http/accept.ts';
import type {App} from './http/app.ts';
import type {Limits} from './http/limits.ts';
import {type Address, canShare, type Listeners} from './listeners.ts';
import type {Generations} from './registry/generations.ts';
import type {Storage} from './storage/open.ts';
import {type Busyness, type Machine, mostThreads, thisMachine, whenBusy} from './workers/demand.ts';
import type {Happening, WorkerListenerSettings} from './workers/messages.ts';
import {createWorkers, type Workers} from './workers/workers.ts';

/** The workers of a server, beside the thread that owns everything. */
export interface ServerWorkers extends Pick<Workers, 'replaceHeaders' | 'forget' | 'report' | 'close'> {
  /** Starts them where the server listens, or later, when they are needed. @throws what keeps one of them from listening */
  start(addresses: readonly Address[]): Promise<void>;
}

export interface WorkerDeps {
  /** What the threads share; default the machine that this process runs on. */
  machine?: Machine | undefined;
  /** How busy the owner is; default its event loop. */
  busyness?: Busyness | undefined;
  /** The program of their threads; default the one that belongs to the server. */
  workerProgram?: URL | undefined;
}

export interface ServerWorkersParts extends Omit<WorkerDeps, 'machine'> {
  config: Config;
  sharing: Sharing;
  app: Pick<App, 'sharePrepared' | 'requests'>;
  storage: Pick<Storage, 'shareReads'>;
  /** That of the owner's requests. */
  keySecret: string;
  listeners: Listeners;
  generations: Generations;
  limits: Limits;
  clock: Clock;
  events: Events;
}

/** How the connections to a server are shared. */
export interface Sharing {
  /** Whether several sockets can listen on a port. */
  isShared: boolean;
  /** How many threads answer requests at most, the owner included. */
  count: number;
  /** Whether the others start only when the owner is busy. */
  isOnDemand: boolean;
}

export async function planSharing(
  {workers, listen}: Config,
  events: Events,
  {machine = thisMachine()}: Pick<WorkerDeps, 'machine'>,
): Promise<Sharing> {
  const isShared = await canSharePorts();
  const isOnDemand = workers === 'auto';
  const count = isOnDemand ? mostThreads(machine) : workers;
  const isPossible = isShared && listen.some(canShare);
  if (!isShared && !isOnDemand && count > 1) events.emit('workers.unavailable', {count});
  return {isShared, isOnDemand, count: isPossible ? count : 1};
}

export function createServerWorkers(parts: ServerWorkersParts): ServerWorkers {
  const {config, sharing, app, storage, keySecret, listeners, generations, limits, clock, events} = parts;
  const {count, isOnDemand} = sharing;
  const workers = createWorkers({
    listener(number) {
      const listener = listeners.all[number];
      if (!listener) throw new Error(`a worker has a listener ${number}, which does not exist`);
      return listener;
    },
    happened: createReplay(parts),
    runs: app.requests.runs,
    program: parts.workerProgram,
    clock,
    events,
  });
  async function begin(addresses: readonly Address[]): Promise<void> {
    const preparedBytes = app.sharePrepared(count);
    const readBytes = storage.shareReads(count);
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
  }

  async function beginLater(addresses: readonly Address[]): Promise<void> {
    try {
      await begin(addresses);
      if (!isClosing) events.emit('workers.started', {count});
    } catch (error) {
      // A server that closes ends those that are still starting.
      if (!isClosing) events.emit('background.failed', {task: 'start workers', error});
    }
  }

  let isClosing = false;
  let cancel: Cancel = () => {};
  return {
    replaceHeaders: (headers) => workers.replaceHeaders(headers),
    forget: (path) => workers.forget(path),
    report: () => workers.report(),
    async start(addresses) {
      if (count === 1) return;
      if (!isOnDemand) return begin(addresses);
      cancel = whenBusy(() => void beginLater(addresses), {busyness: parts.busyness, clock});
    },
    close(grace) {
      isClosing = true;
      cancel();
      return workers.close(grace);
    },
  };
}

/** Counts and reports what happened in a worker as if it had happened here. */
function createReplay({app, events}: ServerWorkersParts): (happening: Happening) => void {
  const {replay} = app.requests;
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
