import {isIPv6} from 'node:net';
import {ANONYMOUS, type Caller} from '../caller.ts';
import type {Clock} from '../clock.ts';
import type {Events, RequestKind} from '../events.ts';
import {OciError} from '../oci/errors.ts';

/** What clients may do; each number a whole one, and 1 or more unless it says otherwise. */
export interface LimitSettings {
  /** How many may be open or running at the same time, as in the next two. */
  connections: {total: number; perAddress: number};
  /** `pipelined`: on one connection, the one whose answer is under way included. */
  requests: {total: number; perCaller: number; pipelined: number};
  /**
   * Requests that write an upload. They are counted as requests as well. `unfinished`: uploads of one caller that have begun
   * and not ended, whether or not a request writes them.
   */
  uploads: {total: number; perCaller: number; unfinished: number};
  /** Of one request: all bytes of its headers, their number, and the milliseconds in which they have to arrive. */
  headers: {size: number; count: number; timeout: number};
  bodies: BodyLimits;
}

/** How slowly the body of a request may arrive, and how long a form may be. */
export interface BodyLimits {
  /** Milliseconds in which something has to arrive. */
  timeout: number;
  /** Bytes a second, on average over a `timeout` of waiting for the client; 0 for no limit. */
  minRate: number;
  /** Bytes of the form that asks for a token. */
  maxForm: number;
}

/** The place of one request among those that run at the same time. */
export interface Slot {
  /**
   * Takes the place. Probes need none: a busy server can still be asked whether it is well.
   * @param holder as `holderOf` names it
   * @throws OciError 503 when too many requests run in total, 429 when too many of this holder do
   */
  take(kind: RequestKind, holder: string): void;
  /** Gives the place back, and takes none from then on. Idempotent. */
  free(): void;
}

/** How much may run at the same time in one server, all listeners together. */
export interface Limits {
  /** Those in force. */
  readonly settings: LimitSettings;
  /** How many connections `connect` has counted that are still open. */
  readonly openConnections: number;
  /** Puts other settings in force, except the size and the timeout of headers. What runs goes on, and stays counted. */
  replace(settings: LimitSettings): void;
  /**
   * Counts a connection.
   * @param address of its client as `networkOf` gives it; undefined where it stands for many clients
   * @returns a function to call once, when it has closed
   * @throws OciError 503 when too many are open in total, 429 when too many of this address are
   */
  connect(address: string | undefined): () => void;
  /** Opens no place yet. @param method of the request */
  slot(method: string): Slot;
  /** Whether a slot for a request that reads could be taken now. Parameters as of `Slot.take`. */
  admits(kind: RequestKind, holder: string): boolean;
  /** Counts a refusal, if a limit was its reason. */
  report(error: unknown, client: string | undefined): void;
}

/**
 * What a client that was refused should wait, in seconds: long enough that a busy server is not asked at once again, and
 * short beside the minutes that a pull may take.
 */
const RETRY_AFTER_S = 5;

/** A limit that is exceeded a thousand times a second is worth a line of the log now and then. */
const REPORT_INTERVAL_MS = 60_000;

export interface LimitsParts {
  clock: Pick<Clock, 'monotonic'>;
  events: Events;
}

export const createLimits = (settings: LimitSettings, parts: LimitsParts): Limits =>
  new CountedLimits(settings, parts);

/** Of a request that writes an upload, which is one of both, and of any other. */
type RequestLimits = Readonly<Record<'uploads' | 'requests', readonly Concurrency[]>>;

const NONE: readonly Concurrency[] = [];

class CountedLimits implements Limits {
  settings: LimitSettings;
  readonly #connections: Concurrency;
  readonly #requests: Concurrency;
  readonly #uploads: Concurrency;
  readonly #forRequests: RequestLimits;
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #events: Events;
  /** When the log last mentioned each limit. */
  readonly #reported = new Map<string, number>();

  constructor(settings: LimitSettings, {clock, events}: LimitsParts) {
    const {connections, requests, uploads} = settings;
    this.settings = settings;
    this.#connections = new Concurrency('connections', 'perAddress', connections);
    this.#requests = new Concurrency('requests', 'perCaller', requests);
    this.#uploads = new Concurrency('uploads', 'perCaller', uploads);
    this.#forRequests = {requests: [this.#requests], uploads: [this.#uploads, this.#requests]};
    this.#clock = clock;
    this.#events = events;
  }

  get openConnections(): number {
    return this.#connections.total;
  }

  replace(settings: LimitSettings): void {
    const {connections, requests, uploads} = settings;
    // The listeners begin with a size and a timeout of headers, and keep them.
    const headers = {...this.settings.headers, count: settings.headers.count};
    this.settings = {...settings, headers};
    this.#connections.allow(connections);
    this.#requests.allow(requests);
    this.#uploads.allow(uploads);
  }

  connect(address: string | undefined): () => void {
    this.#connections.refuseMore(address);
    this.#connections.add(address);
    return () => this.#connections.remove(address);
  }

  slot(method: string): Slot {
    return new RequestSlot(method, this.#forRequests);
  }

  admits(kind: RequestKind, holder: string): boolean {
    return needsNoPlace(kind) || this.#requests.admits(holder);
  }

  report(error: unknown, client: string | undefined): void {
    if (!(error instanceof OciError) || error.limit === undefined) return;
    const {limit, message} = error;
    this.#events.emit('limit.exceeded', {limit, client});
    const now = this.#clock.monotonic();
    const last = this.#reported.get(limit);
    if (last !== undefined && now - last < REPORT_INTERVAL_MS) return;
    this.#reported.set(limit, now);
    this.#events.emit('limit.reached', {limit, reason: message});
  }
}

const needsNoPlace = (kind: RequestKind): boolean => kind === 'probe' || kind === 'metrics';

class RequestSlot implements Slot {
  readonly #method: string;
  readonly #limits: RequestLimits;
  #taken: readonly Concurrency[] = NONE;
  #holder = '';
  #isFree = false;

  constructor(method: string, limits: RequestLimits) {
    this.#method = method;
    this.#limits = limits;
  }

  take(kind: RequestKind, holder: string): void {
    // A client that has left meanwhile would not give it back.
    if (this.#isFree || needsNoPlace(kind)) return;
    const isRead = this.#method === 'GET' || this.#method === 'HEAD';
    const limits = kind === 'upload' && !isRead ? this.#limits.uploads : this.#limits.requests;
    for (const limit of limits) limit.refuseMore(holder);
    for (const limit of limits) limit.add(holder);
    this.#taken = limits;
    this.#holder = holder;
  }

  free(): void {
    for (const limit of this.#taken) limit.remove(this.#holder);
    this.#taken = NONE;
    this.#isFree = true;
  }
}

type Share = 'perAddress' | 'perCaller';
type Allowed = Readonly<{total: number} & Partial<Record<Share, number>>>;

/** What runs of one kind, in total and per holder. A holder of which nothing runs takes no memory. */
class Concurrency {
  readonly #what: string;
  readonly #share: Share;
  #allowed: Allowed;
  total = 0;
  readonly #byHolder = new Map<string, number>();

  /** @param share the name of the setting for one holder */
  constructor(what: string, share: Share, allowed: Allowed) {
    this.#what = what;
    this.#share = share;
    this.#allowed = allowed;
  }

  /** What runs stays counted. */
  allow(allowed: Allowed): void {
    this.#allowed = allowed;
  }

  /**
   * @param holder undefined for what counts only in total, as in `add` and `remove`
   * @throws OciError when one more would be too many
   */
  refuseMore(holder: string | undefined): void {
    const {total, [this.#share]: perHolder = total} = this.#allowed;
    if (this.total >= total)
      throw refusal(503, `this server has ${total} ${this.#what}`, `limits.${this.#what}.total`);
    if (holder !== undefined && this.#of(holder) >= perHolder)
      throw refusal(429, `${holder} has ${perHolder} ${this.#what}`, `limits.${this.#what}.${this.#share}`);
  }

  /** Whether one more would not be too many. */
  admits(holder: string): boolean {
    const {total, [this.#share]: perHolder = total} = this.#allowed;
    return this.total < total && this.#of(holder) < perHolder;
  }

  add(holder: string | undefined): void {
    this.total += 1;
    if (holder !== undefined) this.#byHolder.set(holder, this.#of(holder) + 1);
  }

  remove(holder: string | undefined): void {
    this.total -= 1;
    if (holder === undefined) return;
    const left = this.#of(holder) - 1;
    if (left > 0) this.#byHolder.set(holder, left);
    else this.#byHolder.delete(holder);
  }

  #of(holder: string): number {
    return this.#byHolder.get(holder) ?? 0;
  }
}

const refusal = (status: 429 | 503, state: string, limit: string): OciError =>
  new OciError('TOOMANYREQUESTS', {
    status,
    limit,
    message: `${state} at the same time, which is the most that ${limit} allows: try again in ${RETRY_AFTER_S} s, or raise the limit`,
    headers: {'Retry-After': String(RETRY_AFTER_S)},
  });

/**
 * Under which name a caller's requests are counted: its own, or its address where it is anonymous.
 * @param client its address, if known
 */
export const holderOf = ({names: [name]}: Pick<Caller, 'names'>, client: string | undefined): string =>
  name === ANONYMOUS.names[0] ? networkOf(client ?? 'an unknown address') : name;

/** A client of IPv6 has all addresses of a network of 64 bits (RFC 6177): they count as one. */
export function networkOf(address: string): string {
  if (!isIPv6(address)) return address;
  const [head = '', tail] = address.split('::');
  const first = head === '' ? [] : head.split(':');
  const last = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - first.length - last.length);
  const groups = [...first, ...Array<string>(zeros).fill('0'), ...last].slice(0, 4);
  return `${groups.join(':')}::/64`;
}
