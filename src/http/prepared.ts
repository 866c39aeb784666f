import {validateHeaderValue} from 'node:http';
import type {Clock} from '../clock.ts';
import {type Authenticator, NOBODY, type RememberedLogin} from '../identity/authenticator.ts';
import {type Digest, isDigest} from '../oci/digest.ts';
import {areCurrent, type Generation, type Generations} from '../registry/generations.ts';
import type {Repeat} from '../registry/repeat.ts';
import {type Answer, cacheStatus, type Field, fieldsOf} from './answer.ts';
import {type AnswerTable, createAnswerTable, type PreparedAnswer, type ReadyAnswer} from './answer-table.ts';
import type {KnownRequest} from './known-request.ts';
import type {Exchange} from './send.ts';
import {maxWriteAt} from './write-size.ts';

/**
 * The answers that may be given again. The ordinary way of a request decides that. An answer holds as long as the
 * generations of the content it was made from, of the configuration and of logins are current, and its time has not run out.
 */
export interface PreparedAnswers {
  /** The answer to an equal request, if it is what the ordinary way would answer now. */
  find(request: KnownRequest): ReadyAnswer | undefined;
  /** Keeps an answer, if it may be given again. @returns what is kept */
  keep(request: BegunRequest, exchange: Exchange, answer: Answer): PreparedAnswer | undefined;
  /**
   * Leaves memory to other threads.
   * @param threads how many keep answers, this one included
   * @returns the bytes that each of them may take
   */
  share(threads: number): number;
}

/** A request, with the generations that were taken before anything was found out for it. */
export interface BegunRequest {
  readonly known: KnownRequest;
  readonly configuration: Generation;
  readonly logins: Generation;
}

export interface PreparedAnswersParts {
  authenticator: Pick<Authenticator, 'remembered'>;
  generations: Pick<Generations, 'slots'>;
  /** Bytes to hold; the least recently used answers go first. */
  maxBytes: number;
  clock: Pick<Clock, 'now' | 'monotonic'>;
}

export const createPreparedAnswers = (parts: PreparedAnswersParts): PreparedAnswers =>
  new CheckedAnswers(parts);

class CheckedAnswers implements PreparedAnswers {
  readonly #authenticator: Pick<Authenticator, 'remembered'>;
  readonly #slots: Int32Array;
  readonly #clock: Pick<Clock, 'now'>;
  readonly #table: AnswerTable;
  readonly #maxBytes: number;

  constructor({authenticator, generations, maxBytes, clock}: PreparedAnswersParts) {
    const {slots} = generations;
    this.#authenticator = authenticator;
    this.#slots = slots;
    this.#clock = clock;
    this.#maxBytes = maxBytes;
    this.#table = createAnswerTable({slots, maxBytes, clock});
  }

  find({key}: KnownRequest): ReadyAnswer | undefined {
    return this.#table.find(key);
  }

  keep(
    {known, configuration, logins}: BegunRequest,
    exchange: Exchange,
    answer: Answer,
  ): PreparedAnswer | undefined {
    const {report, status} = answer;
    const {identity, isRepeatable, entrance} = exchange;
    if (!answer.repeat || !identity || !isRepeatable) return undefined;
    if (status !== 200 && status !== 304) return undefined;
    const content = contentOf(answer, known.method, maxWriteAt(entrance));
    if (!content) return undefined;
    const login = this.#loginOf(known);
    if (login?.identity !== identity) return undefined;
    const fields = fieldsOf(answer, known.method, exchange.namespace);
    if (!fields.every(isWritable)) return undefined;
    // Who shows no credential may have to, once somebody can log in.
    const generations = [configuration, logins, ...answer.repeat.generations];
    const lasting = {...answer.repeat, generations};
    const repeat = known.authorization === undefined ? lasting : this.#within(lasting, login);
    if (!areCurrent(this.#slots, repeat.generations)) return undefined;
    const {caller, kind, action, registry, repository} = exchange;
    const prepared: PreparedAnswer = {
      status,
      fields,
      ...content,
      caller,
      kind,
      action,
      registry,
      repository,
      digest: digestIn(answer),
      outcome: report ? 'hit' : 'done',
      cache: report && cacheStatus(report),
      repeat,
      login: login.use,
    };
    this.#table.put(known.key, prepared);
    return prepared;
  }

  share(threads: number): number {
    const bytes = Math.floor(this.#maxBytes / threads);
    this.#table.resize(bytes);
    return bytes;
  }

  /** Who sent a request. Undefined where its credential has to be checked each time. */
  #loginOf({authorization}: KnownRequest): RememberedLogin | undefined {
    return authorization === undefined ? NO_LOGIN : this.#authenticator.remembered(authorization);
  }

  /** A repeat that ends with its credential. A clock that is set back does not make that last longer. */
  #within(repeat: Repeat, login: RememberedLogin): Repeat {
    const {from, until, lifespan} = repeat;
    const ends = (last: number): number => Math.min(last, login.until);
    return {
      ...repeat,
      from: Math.max(from, this.#clock.now()),
      until: ends(until),
      ...(lifespan ? {lifespan: {...lifespan, until: ends(lifespan.until)}} : {}),
    };
  }
}

/**
 * The body as it is kept. Undefined where that cannot be done.
 * @param most bytes of one that is given in one write
 */
function contentOf(
  {body, file}: Answer,
  method: KnownRequest['method'],
  most: number,
): Pick<PreparedAnswer, 'body' | 'file'> | undefined {
  if (body === undefined) return {body, file: undefined};
  if (!Buffer.isBuffer(body)) return file && {body: undefined, file};
  if (body.length > most) return undefined;
  return {body: method === 'HEAD' ? undefined : body, file: undefined};
}

const NO_LOGIN: RememberedLogin = {
  identity: NOBODY,
  until: Number.POSITIVE_INFINITY,
  use: {method: undefined, source: undefined},
};

/** What node's HTTP server would not write must not be written below it. */
function isWritable([name, value]: Field): boolean {
  try {
    for (const one of [value].flat()) validateHeaderValue(name, one);
    return true;
  } catch {
    return false;
  }
}

function digestIn({headers}: Answer): Digest | undefined {
  const named = headers['Docker-Content-Digest'];
  return typeof named === 'string' && isDigest(named) ? named : undefined;
}
