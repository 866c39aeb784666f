import {LRUCache} from 'lru-cache';
import type {Action} from '../caller.ts';
import type {Clock} from '../clock.ts';
import type {RequestKind} from '../events.ts';
import {type Authenticator, type Identity, NOBODY} from '../identity/authenticator.ts';
import {type Digest, isDigest} from '../oci/digest.ts';
import type {RepositoryName} from '../oci/name.ts';
import {areCurrent, type Generation, type Generations} from '../registry/generations.ts';
import type {Repeat} from '../registry/repeat.ts';
import {type Answer, cacheStatus, type Field, fieldsOf} from './answer.ts';
import type {Entrance} from './entrance.ts';
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
}

/**
 * The answers that may be given again. The ordinary way of a request decides that; what it decided by is compared with
 * what is now: the generations of what was read, the configuration, the caller and the time.
 */
export interface PreparedAnswers {
  /** The answer to an equal request, if it is what the ordinary way would answer now. */
  find(request: KnownRequest, entrance: Entrance): PreparedAnswer | undefined;
  /**
   * Keeps an answer, if it may be given again.
   * @param configuration taken when the request was routed
   */
  keep(request: KnownRequest, exchange: Exchange, configuration: Generation, answer: Answer): void;
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

interface Entry extends PreparedAnswer {
  readonly entrance: Entrance;
}

export const createPreparedAnswers = (parts: PreparedAnswersParts): PreparedAnswers => new AnswerTable(parts);

class AnswerTable implements PreparedAnswers {
  readonly #authenticator: Pick<Authenticator, 'remembered'>;
  readonly #slots: Int32Array;
  readonly #clock: Pick<Clock, 'now'>;
  readonly #entries: LRUCache<string, Entry> | undefined;
  readonly #numbers = new WeakMap<Identity, number>();
  #lastNumber = 0;

  constructor({authenticator, generations, maxBytes, clock}: PreparedAnswersParts) {
    this.#authenticator = authenticator;
    this.#slots = generations.slots;
    this.#clock = clock;
    // It is written in one piece, beside what was prepared of it.
    const sizeOf = ({body}: Entry, key: string): number =>
      2 * (body?.length ?? 0) + key.length + OVERHEAD_BYTES;
    if (maxBytes >= OVERHEAD_BYTES)
      this.#entries = new LRUCache({maxSize: maxBytes, sizeCalculation: sizeOf});
  }

  find(request: KnownRequest, entrance: Entrance): PreparedAnswer | undefined {
    const identity = this.#senderOf(request);
    if (!identity) return undefined;
    const key = this.#keyOf(request, identity);
    const entry = this.#entries?.get(key);
    if (!entry || entry.entrance !== entrance) return undefined;
    if (this.#holds(entry)) return entry;
    this.#entries?.delete(key);
    return undefined;
  }

  keep(request: KnownRequest, exchange: Exchange, configuration: Generation, answer: Answer): void {
    const {repeat, report, status, body} = answer;
    const {entrance, identity, isRepeatable} = exchange;
    if (!repeat || !report || !identity || !isRepeatable || (status !== 200 && status !== 304)) return;
    if (body !== undefined && !(Buffer.isBuffer(body) && body.length <= MAX_WRITE_BYTES)) return;
    if (this.#senderOf(request) !== identity) return;
    const generations = [configuration, ...repeat.generations];
    if (!areCurrent(this.#slots, generations)) return;
    const {caller, kind, action, registry, repository} = exchange;
    const content = {
      status,
      fields: fieldsOf(answer, request.method, exchange.namespace),
      body: request.method === 'HEAD' ? undefined : body,
    };
    this.#entries?.set(this.#keyOf(request, identity), {
      ...content,
      rendered: renderedAnswer(content),
      caller,
      kind,
      action,
      registry,
      repository,
      digest: digestIn(answer),
      cache: cacheStatus(report),
      entrance,
      repeat: {...repeat, generations},
    });
  }

  #holds({repeat: {from, until, generations}}: Entry): boolean {
    const now = this.#clock.now();
    return now >= from && now < until && areCurrent(this.#slots, generations);
  }

  /** Who sent a request: credentials are looked at each time. Undefined where they have to be checked. */
  #senderOf({authorization}: KnownRequest): Identity | undefined {
    return authorization === undefined ? NOBODY : this.#authenticator.remembered(authorization);
  }

  /** Names the identity, whatever its credential is: no credential is kept here. */
  #keyOf({key}: KnownRequest, identity: Identity): string {
    if (identity === NOBODY) return key;
    const number = this.#numbers.get(identity) ?? ++this.#lastNumber;
    this.#numbers.set(identity, number);
    return `${number} ${key}`;
  }
}

function digestIn({headers}: Answer): Digest | undefined {
  const named = headers['Docker-Content-Digest'];
  return typeof named === 'string' && isDigest(named) ? named : undefined;
}
