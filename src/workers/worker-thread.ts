/* A worker: shares the owner's ports, answers what is prepared, and relays the rest. It is started by workers.ts. */
import {setImmediate as nextTurn} from 'node:timers/promises';
import {parentPort, workerData} from 'node:worker_threads';
import {type Clock, systemClock} from '../clock.ts';
import type {Events} from '../events.ts';
import {createAnswerTable} from '../http/answer-table.ts';
import {createRequestReader} from '../http/known-request.ts';
import {createPreparedSender} from '../http/prepared-sender.ts';
import {createHappenings} from './happenings.ts';
import type {ToWorker, WorkerSetup} from './messages.ts';
import type {Post} from './relayed-connection.ts';
import {createWorkerListener, type OwnedConnection} from './worker-listener.ts';

/** How often what has happened is reported. */
const REPORT_INTERVAL_MS = 500;

/** How many turns of the event loop a stop waits for the ends of requests. */
const MAX_TURNS = 100;

/** The owner limits the requests that it runs. What is prepared ends as it begins. */
const NO_SLOT = {take() {}, free() {}};

function serve(
  {slots, preparedBytes, keySecret, times, heard, ...setup}: WorkerSetup,
  port: NonNullable<typeof parentPort>,
) {
  let {headers} = setup;
  const clock = clockOf(times);
  const post: Post = (message, owned = []) => port.postMessage(message, owned);
  const {events, reports, take} = createHappenings({
    heard,
    report: (happenings) => post({type: 'happened', happenings}),
    clock,
  });
  const connections = new Map<number, OwnedConnection>();
  let lastId = 0;
  const parts = {
    connections,
    nextId: () => ++lastId,
    reader: createRequestReader(() => headers.count, keySecret),
    table: createAnswerTable({slots, maxBytes: preparedBytes, clock}),
    sender: createPreparedSender({limits: {slot: () => NO_SLOT, admits: () => true}, reports}),
    headers,
    post,
    clock,
    events,
  };
  const listeners = setup.listeners.map((settings) => createWorkerListener({...parts, settings}));

  function report(): void {
    const happenings = take();
    if (happenings.length > 0) post({type: 'happened', happenings});
  }

  async function stop(): Promise<void> {
    await Promise.all(listeners.map((listener) => listener.close()));
    // The writes that a connection's end interrupts end after it.
    for (let turn = 0; turn < MAX_TURNS && reports.inFlight > 0; turn += 1) await nextTurn();
    clearInterval(reporting);
    report();
    post({type: 'stopped'});
  }

  port.on('message', (message: ToWorker) => {
    switch (message.type) {
      case 'keep':
        parts.table.put(message.key, message.answer);
        return;
      case 'headers':
        headers = message.headers;
        return;
      case 'report':
        report();
        post({type: 'reported'});
        return;
      case 'stop':
        void stop();
        return;
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
