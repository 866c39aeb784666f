import {validateHeaderValue} from 'node:http';
import {LRUCache} from 'lru-cache';
import type {Action} from '../caller.ts';
import type {Clock} from '../clock.ts';
import type {RequestKind} from '../events.ts';
import {type Authenticator, type LoginUse, NOBODY, type RememberedLogin} from '../identity/authenticator.ts';
import {type Digest, isDigest} from '../oci/digest.ts';
import type {RepositoryName} from '../oci/name.ts';
import {areCurrent, type Generation, type Generations} from '../registry/generations.ts';
import type {Repeat} from '../registry/repeat.ts';
import {type Answer, cacheStatus, type Field, fieldsOf} from './answer.ts';
import type {KnownRequest} from './known-request.ts';
import {type RenderedAnswer, renderedAnswer} from './rendered-answer.ts';
import {type Exchange, MAX_WRITE_BYTES} from './send.ts';

/** An answer that a request was given, ready to be given to equal requests. */
export interface PreparedAnswer {
  readonly status: number;
  /** Without those that every answer has of its own: `X-Request-Id`, `Date` and those of the connection. */
  readonly fields: readonly Field[];
  /** Undefined where an answer has none: to HEAD, and 304. */
  readonly body: Buffer | undefined;
  /** The caller's own name. */
  readonly caller: string;
  readonly kind: RequestKind;
  readonly action: Action | undefined;
  readonly registry: string | undefined;
  readonly repository: RepositoryName | undefined;
  readonly digest: Digest | undefined;
  /** Its `Cache-Status`. */
  readonly cache: string;
  readonly rendered: RenderedAnswer;
  readonly repeat: Repeat;
  /** What is reported of the credential each time. */
  readonly login: LoginUse;
}

/**
 * The answers that may be given again. The ordinary way of a request decides that; what it decided by is compared with
 * what is now: the generations of what was read, of the configuration and of logins, and the time.
 */
export interface PreparedAnswers {
  /** The answer to an equal request, if it is what the ordinary way would answer now. */
  find(request: KnownRequest): PreparedAnswer | undefined;
  /** Keeps an answer, if it may be given again. */
  keep(request: BegunRequest, exchange: Exchange, answer: Answer): void;
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
  clock: Pick<Clock, 'now'>;
}

/** What an entry costs beside its content. */
const OVERHEAD_BYTES = 2048;

export const createPreparedAnswers = (parts: PreparedAnswersParts): PreparedAnswers => new AnswerTable(parts);

class AnswerTable implements PreparedAnswers {
  readonly #authenticator: Pick<Authenticator, 'remembered'>;
  readonly #slots: Int32Array;
  readonly #clock: Pick<Clock, 'now'>;
  readonly #entries: LRUCache<string, PreparedAnswer> | undefined;

  constructor({authenticator, generations, maxBytes, clock}: PreparedAnswersParts) {
    this.#authenticator = authenticator;
    this.#slots = generations.slots;
    this.#clock = clock;
    // It is written in one piece, beside what was prepared of it.
    const sizeOf = ({body}: PreparedAnswer, key: string): number =>
      2 * (body?.length ?? 0) + key.length + OVERHEAD_BYTES;
    if (maxBytes >= OVERHEAD_BYTES)
      this.#entries = new LRUCache({maxSize: maxBytes, sizeCalculation: sizeOf});
  }

  find({key}: KnownRequest): PreparedAnswer | undefined {
    const entry = this.#entries?.get(key);
    if (!entry) return undefined;
    if (this.#holds(entry.repeat)) return entry;
    this.#entries?.delete(key);
    return undefined;
  }

  keep({known, configuration, logins}: BegunRequest, exchange: Exchange, answer: Answer): void {
    const {report, status, body} = answer;
    const {identity, isRepeatable} = exchange;
    if (!answer.repeat || !report || !identity || !isRepeatable) return;
    if (status !== 200 && status !== 304) return;
    if (body !== undefined && !(Buffer.isBuffer(body) && body.length <= MAX_WRITE_BYTES)) return;
    const login = this.#loginOf(known);
    if (login?.identity !== identity) return;
    const fields = fieldsOf(answer, known.method, exchange.namespace);
    if (!fields.every(isWritable)) return;
    const withConfiguration = {...answer.repeat, generations: [configuration, ...answer.repeat.generations]};
    const repeat =
      known.authorization === undefined ? withConfiguration : this.#within(withConfiguration, login, logins);
    if (!areCurrent(this.#slots, repeat.generations)) return;
    const {caller, kind, action, registry, repository} = exchange;
    const content = {status, fields, body: known.method === 'HEAD' ? undefined : body};
    this.#entries?.set(known.key, {
      ...content,
      rendered: renderedAnswer(content),
      caller,
      kind,
      action,
      registry,
      repository,
      digest: digestIn(answer),
      cache: cacheStatus(report),
      repeat,
      login: login.use,
    });
  }

  #holds({from, until, generations}: Repeat): boolean {
    const now = this.#clock.now();
    return now >= from && now < until && areCurrent(this.#slots, generations);
  }

  /** Who sent a request. Undefined where its credential has to be checked each time. */
  #loginOf({authorization}: KnownRequest): RememberedLogin | undefined {
    return authorization === undefined ? NO_LOGIN : this.#authenticator.remembered(authorization);
  }

  /** A repeat that ends with its credential. A clock that is set back does not make that last longer. */
  #within({from, until, generations, served}: Repeat, login: RememberedLogin, logins: Generation): Repeat {
    return {
      from: Math.max(from, this.#clock.now()),
      until: Math.min(until, login.until),
      generations: [...generations, logins],
      served,
    };
  }
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
