/* A worker: shares the owner's ports, answers what is prepared, and relays the rest. It is started by workers.ts. */
import {setImmediate as nextTurn} from 'node:timers/promises';
import {parentPort, workerData} from 'node:worker_threads';
import {type Clock, systemClock} from '../clock.ts';
import type {Events} from '../events.ts';
import {createAnswerTable} from '../http/answer-table.ts';
import {createFileSender} from '../http/file-sender.ts';
import {createRequestReader} from '../http/known-request.ts';
import {createPreparedSender} from '../http/prepared-sender.ts';
import {createSentBytes} from '../http/sent-bytes.ts';
import {openBlobFiles} from '../storage/open-files.ts';
import {createHappenings} from './happenings.ts';
import type {ToWorker, WorkerSetup} from './messages.ts';
import type {Post} from './relayed-connection.ts';
import {createRemoteRuns} from './remote-runs.ts';
import {createWorkerListener, type OwnedConnection} from './worker-listener.ts';

/** How often what has happened is reported. */
const REPORT_INTERVAL_MS = 500;

/** How many turns of the event loop a stop waits for the ends of requests. */
const MAX_TURNS = 100;

/** The owner limits the requests that it runs, and answers from files. What else is prepared ends as it begins. */
const NO_SLOT = {take() {}, free() {}};

/** The parts of a worker, all of its listeners together. */
function createParts(setup: WorkerSetup, post: Post) {
  const {slots, preparedBytes, keySecret, times, heard} = setup;
  const clock = clockOf(times);
  const sentBytes = createSentBytes();
  const {events, reports, take} = createHappenings({
    heard,
    sentBytes,
    report: (happenings) => post({type: 'happened', happenings}),
    clock,
  });
  const files = openBlobFiles({
    ...setup.files,
    clock,
    report: ({part, code, message}) => events.emit('disk.failed', {part, code, message}),
  });
  const runs = createRemoteRuns(post);
  const fileSender = createFileSender({files, runs, sentBytes, events});
  const limits = {...setup.headers};
  let lastId = 0;
  return {
    ...{clock, events, reports, take, files, runs, fileSender, sentBytes, post, limits},
    connections: new Map<number, OwnedConnection>(),
    nextId: () => ++lastId,
    reader: createRequestReader(() => limits.count, keySecret),
    table: createAnswerTable({slots, maxBytes: preparedBytes, clock}),
    sender: createPreparedSender({limits: {slot: () => NO_SLOT, admits: () => true}, reports}),
    headers: setup.headers,
  };
}

function serve(setup: WorkerSetup, port: NonNullable<typeof parentPort>) {
  const post: Post = (message, owned = []) => port.postMessage(message, owned);
  const parts = createParts(setup, post);
  const {events, reports, take, files, runs, fileSender, limits, connections, table} = parts;
  const listeners = setup.listeners.map((settings) => createWorkerListener({...parts, settings}));

  function report(): void {
    const happenings = take();
    if (happenings.length > 0) post({type: 'happened', happenings});
  }

  const isAnswering = (): boolean => reports.inFlight > 0 || fileSender.running > 0;

  async function stop(): Promise<void> {
    await Promise.all(listeners.map((listener) => listener.close()));
    // The writes that a connection's end interrupts end after it.
    for (let turn = 0; turn < MAX_TURNS && isAnswering(); turn += 1) await nextTurn();
    await files.close();
    clearInterval(reporting);
    report();
    post({type: 'stopped'});
  }

  port.on('message', (message: ToWorker) => {
    switch (message.type) {
      case 'keep':
        return table.put(message.key, message.answer);
      case 'begun':
        return runs.decided(message);
      case 'forget':
        return files.forget(message.path);
      case 'headers':
        limits.count = message.headers.count;
        return;
      case 'report':
        report();
        return post({type: 'reported'});
      case 'stop':
        return void stop();
      case 'cut':
        for (const listener of listeners) listener.cut();
        return;
      default:
        connections.get(message.id)?.obey(message);
    }
  });
  const reporting = setInterval(report, REPORT_INTERVAL_MS);
  return Promise.all(listeners.map((listener) => listener.listen())).then(() => {
    surviveFaults(events);
    post({type: 'listening'});
  });
}

/** A defect that one request meets must not end the connections of the others. */
function surviveFaults(events: Events): void {
  const report = (origin: 'promise' | 'exception', fault: unknown): void => {
    const error = fault instanceof Error ? fault : new Error(String(fault));
    events.emit('server.fault', {origin, error});
  };
  process.on('uncaughtException', (error) => report('exception', error));
  process.on('unhandledRejection', (reason) => report('promise', reason));
}

/** A test's clock moves in all threads. */
const clockOf = (times: WorkerSetup['times']): Clock =>
  times ? {...systemClock, now: () => times[0] ?? 0, monotonic: () => times[1] ?? 0} : systemClock;

// A worker that cannot listen ends.
if (parentPort) await serve(workerData, parentPort);
