import type {ServerResponse} from 'node:http';
import type {Duplex} from 'node:stream';
import {OciError} from '../oci/errors.ts';
import type {LimitSettings} from './limits.ts';

/**
 * The requests of one listener whose answers are not finished, by connection. Those that a client sends without waiting
 * for the answers before begin one after the other.
 */
export interface Pipelines {
  /**
   * Calls `begin` once the requests before are answered, and never if the client leaves before that.
   * @throws OciError when too many wait: it cannot be sent, because the answers before it are not finished
   */
  add(response: ServerResponse, begin: () => void): void;
  /** Those of one connection, in the order of their requests. */
  unfinished(socket: Duplex): readonly ServerResponse[];
  /** Whether one of its answers is not finished. */
  isBusy(socket: Duplex): boolean;
}

/** @param settings those in force */
export const createPipelines = (settings: () => Pick<LimitSettings, 'requests'>): Pipelines =>
  new CountedPipelines(settings);

interface Pipeline {
  readonly answers: Set<ServerResponse>;
  /** How many of them have not begun. */
  waiting: number;
}

class CountedPipelines implements Pipelines {
  readonly #settings: () => Pick<LimitSettings, 'requests'>;
  readonly #pipelines = new WeakMap<Duplex, Pipeline>();
  /** How many requests wait, on all connections. */
  #waiting = 0;

  constructor(settings: () => Pick<LimitSettings, 'requests'>) {
    this.#settings = settings;
  }

  add(response: ServerResponse, begin: () => void): void {
    const {socket} = response.req;
    const pipeline = this.#pipelines.get(socket) ?? this.#open(socket);
    const {answers} = pipeline;
    // Node gives a response its socket when those before it are finished.
    if (!response.socket) this.#refuseMore(answers.size);
    answers.add(response);
    response.once('close', () => answers.delete(response));
    if (response.socket) begin();
    else this.#beginInTurn(pipeline, response, begin);
  }

  unfinished(socket: Duplex): readonly ServerResponse[] {
    return [...(this.#pipelines.get(socket)?.answers ?? [])];
  }

  isBusy(socket: Duplex): boolean {
    return (this.#pipelines.get(socket)?.answers.size ?? 0) > 0;
  }

  #beginInTurn(pipeline: Pipeline, response: ServerResponse, begin: () => void): void {
    this.#wait(pipeline, 1);
    response.once('socket', () => {
      this.#wait(pipeline, -1);
      // The one before it closes in this turn, and gives its place among the running requests back only then.
      process.nextTick(() => response.destroyed || begin());
    });
  }

  #open(socket: Duplex): Pipeline {
    const pipeline: Pipeline = {answers: new Set(), waiting: 0};
    this.#pipelines.set(socket, pipeline);
    // The older of the supported versions of node tell no response that waits that its client has left.
    socket.once('close', () => this.#wait(pipeline, -pipeline.waiting));
    return pipeline;
  }

  #wait(pipeline: Pipeline, change: number): void {
    pipeline.waiting += change;
    this.#waiting += change;
  }

  #refuseMore(ofConnection: number): void {
    const {total, pipelined} = this.#settings().requests;
    if (ofConnection >= pipelined)
      throw tooMany('limits.requests.pipelined', `${ofConnection} on one connection`);
    if (this.#waiting >= total) throw tooMany('limits.requests.total', `${total} on all connections`);
  }
}

const tooMany = (limit: string, state: string): OciError =>
  new OciError('TOOMANYREQUESTS', {
    limit,
    message: `disconnected a client, because requests wait for the answers to those before them, ${state}, which is the most that ${limit} allows`,
  });
