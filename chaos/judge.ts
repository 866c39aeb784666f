import type {Content} from '../rig/image.ts';
import type {Exchange} from './http-client.ts';
import {STALLED} from './http-client.ts';
import {type RepositoryModel, referrersOf} from './model.ts';
import type {Promised, Tally} from './tally.ts';

/** How an answer may fail at the moment. */
export interface Excuse {
  /** Why it may be a 5xx, or break off; undefined when nothing that it depends on fails. */
  reason: string | undefined;
  /** Whether upstreams send wrong bytes, which are passed on until the digest is known: never the last one. */
  isMangled: boolean;
  /** Whether the process may be gone. */
  dying: boolean;
}

/** Compares answers with the model, and reports each promise that they break. */
export interface Judge {
  /** @returns whether the content was served, whole and right. */
  content(exchange: Exchange, expected: readonly Content[], mustExist: boolean, excuse: Excuse): boolean;
  manifest(repository: RepositoryModel, reference: string, exchange: Exchange, excuse: Excuse): boolean;
  blob(repository: RepositoryModel, digest: string, exchange: Exchange, excuse: Excuse): boolean;
  /** A list of the referrers of a subject. */
  referrers(repository: RepositoryModel, subject: string, exchange: Exchange, excuse: Excuse): boolean;
  /** What the repository may not serve, or nobody has. @param promise that is broken where it is served all the same */
  absent(exchange: Exchange, excuse: Excuse, promise?: Promised): void;
  /** Anything but success, from a request whose answer has no content. */
  refused(exchange: Exchange, mustExist: boolean, excuse: Excuse): void;
}

/** The statuses that say that something failed, and may succeed later. */
const FAILURES: ReadonlySet<number> = new Set([429, 502, 503, 504, 507]);

export const createJudge = (tally: Tally): Judge => new AnswerJudge(tally);

class AnswerJudge implements Judge {
  readonly #tally: Tally;

  constructor(tally: Tally) {
    this.#tally = tally;
  }

  manifest(repository: RepositoryModel, reference: string, exchange: Exchange, excuse: Excuse): boolean {
    const tag = repository.tags.get(reference);
    const digests = tag ? [...tag.allowed] : [reference];
    const expected = digests.flatMap((digest) => repository.contents.get(digest) ?? []);
    return this.content(exchange, expected, tag?.sure ?? !repository.unsure.has(reference), excuse);
  }

  blob(repository: RepositoryModel, digest: string, exchange: Exchange, excuse: Excuse): boolean {
    const known = repository.contents.get(digest);
    return this.content(exchange, known ? [known] : [], !repository.unsure.has(digest), excuse);
  }

  content(exchange: Exchange, expected: readonly Content[], mustExist: boolean, excuse: Excuse): boolean {
    const {method, status, headers, failure} = exchange;
    if (status !== 200) return this.#refused(exchange, mustExist, excuse);
    const isRight = expected.some(({bytes}) => method === 'HEAD' || isPart(exchange, bytes, excuse));
    if (!isRight) this.#violate('wrong bytes', exchange, differences(exchange, expected));
    const named = headers['docker-content-digest'];
    if (named !== undefined && !expected.some(({digest}) => digest === named))
      this.#violate('wrong bytes', exchange);
    if (failure === undefined) return isRight;
    this.#tally.count('broken off');
    this.#failed(exchange, excuse);
    return false;
  }

  referrers(repository: RepositoryModel, subject: string, exchange: Exchange, excuse: Excuse): boolean {
    const {status, headers, body, failure} = exchange;
    if (status !== 200) return this.#refused(exchange, true, excuse);
    if (failure !== undefined) {
      this.#failed(exchange, excuse);
      return false;
    }
    const {sure, unsure} = referrersOf(repository, subject);
    const listed = new Set<string>(
      JSON.parse(body.toString()).manifests.map(({digest}: {digest: string}) => digest),
    );
    const lacking = [...sure].filter((digest) => !listed.has(digest));
    const foreign = [...listed].filter((digest) => !sure.has(digest) && !unsure.has(digest));
    if (foreign.length > 0) this.#violate('wrong bytes', exchange, `lists ${foreign.join(', ')}`);
    const saysSo = /detail=partial/.test(String(headers['cache-status']));
    if (lacking.length === 0) return true;
    if (saysSo && listed.size > 0) this.#tally.count('incomplete lists that say so');
    else
      this.#violate(
        'falsely empty or short lists',
        exchange,
        `${lacking.length} of ${sure.size} are missing`,
      );
    return false;
  }

  absent(exchange: Exchange, excuse: Excuse, promise: Promised = 'content served without permission'): void {
    const {status, body} = exchange;
    if (status === 200 && body.length > 0) this.#violate(promise, exchange);
    else if (status !== 404) this.#refused(exchange, false, excuse);
  }

  refused(exchange: Exchange, mustExist: boolean, excuse: Excuse): void {
    this.#refused(exchange, mustExist, excuse);
  }

  #refused(exchange: Exchange, mustExist: boolean, excuse: Excuse): boolean {
    const {status} = exchange;
    if (status === undefined) {
      if (exchange.failure === STALLED) this.#violate('stalled requests', exchange);
      else if (!excuse.dying) this.#failed(exchange, excuse);
    } else if (status === 404) {
      if (mustExist) this.#violate('failures reported as absence', exchange);
    } else if (FAILURES.has(status)) this.#failed(exchange, excuse);
    else this.#violate('answers that no failure explains', exchange);
    return false;
  }

  #failed(exchange: Exchange, {reason, dying}: Excuse): void {
    this.#tally.count('failed answers');
    if (reason === undefined && !dying) this.#violate('unavailable without a reason', exchange);
  }

  #violate(promise: Promised, exchange: Exchange, more = ''): void {
    const {method, url, status, headers, body, failure} = exchange;
    const said = failure ?? (status === 200 ? `${body.length} bytes` : body.toString().slice(0, 300));
    const how = headers['cache-status'] ?? '';
    this.#tally.violate(promise, `${method} ${url}: ${status ?? 'no answer'} ${how} ${said} ${more}`.trim());
  }
}

/** Whether a body is right: all of it, or what arrived before it broke off. */
function isPart({body, failure}: Exchange, bytes: Buffer, {isMangled}: Excuse): boolean {
  if (failure === undefined) return bytes.equals(body);
  return body.length < bytes.length && (isMangled || bytes.subarray(0, body.length).equals(body));
}

/** Where a body differs from what was expected. */
function differences({body, headers}: Exchange, expected: readonly Content[]): string {
  const places = expected.map(({digest, bytes}) => {
    const at = body.findIndex((byte, index) => byte !== bytes[index]);
    return `${digest} has ${bytes.length} bytes, the first other one is at ${at}`;
  });
  return `(${places.join(', ')}; Content-Length ${headers['content-length']})`;
}
