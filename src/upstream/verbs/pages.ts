import type {Clock} from '../../clock.ts';
import type {Exchange} from '../exchange.ts';
import {UpstreamFailure} from '../port.ts';
import {header, type Reply} from '../transport/request.ts';
import type {Target} from '../transport/target.ts';
import {nextLink, UnreadableLink} from './link.ts';

/** A list that an upstream gives in pages. */
export interface PagedList {
  /** For failures: `a tag list`. */
  what: string;
  accept: string;
  /** Statuses besides 2xx that the first page may have as an answer. */
  answers: readonly number[];
  mostPages: number;
}

/** Bytes of the largest page that is read. */
export const MAX_PAGE_BYTES = 16 * 1024 * 1024;

/**
 * Milliseconds for all pages of a list: at half a second each, hundreds of thousands of tags. Each page has its own
 * limits; without this one, pages that each just meet them would take days.
 */
const LONGEST = 30 * 60_000;

/** The next page's URL; where the answer came from decides what it is relative to and where it may lead. */
function nextPage({headers, url}: Reply, host: string, what: string): URL | undefined {
  const link = linkToNext(header(headers, 'link'), host);
  if (link === undefined) return undefined;
  const next = URL.parse(link, url.href);
  if (next?.origin === url.origin) return next;
  throw new UpstreamFailure('protocol', host, `links the next page of ${what} outside ${url.origin}`);
}

/** @throws UpstreamFailure: a list whose end cannot be told is none */
function linkToNext(field: string | undefined, host: string): string | undefined {
  try {
    return nextLink(field);
  } catch (error) {
    if (!(error instanceof UnreadableLink)) throw error;
    throw new UpstreamFailure('protocol', host, error.message, {cause: error});
  }
}

/**
 * Asks for page after page, as `Link` leads (RFC 8288), on the host that answered the first. Each reply's body must be
 * read or discarded before the next is asked for.
 * @throws UpstreamFailure when a page fails, leads elsewhere or leads round and round, or when all of them take too
 * long: a list learned partly is none.
 */
export async function* readPages(
  ask: Exchange['ask'],
  target: Target,
  {what, accept, answers, mostPages}: PagedList,
  clock: Clock,
): AsyncGenerator<Reply> {
  const {host} = target.url;
  const seen = new Set<string>();
  const began = clock.monotonic();
  let url: URL | undefined = target.url;
  while (url) {
    if (seen.has(url.href)) throw new UpstreamFailure('protocol', host, `links a page of ${what} twice`);
    if (seen.size === mostPages) {
      throw new UpstreamFailure(
        'protocol',
        host,
        `has more than ${mostPages} pages of ${what} for ${target.repository}`,
      );
    }
    const spent = clock.monotonic() - began;
    if (spent > LONGEST) {
      const reason = `has sent ${seen.size} pages of ${what} in ${spent} ms, and they had not ended`;
      throw new UpstreamFailure('timeout', host, reason);
    }
    seen.add(url.href);
    // A page that is gone in the middle of the list is a failure; only a list that never was is an absence.
    const expected = seen.size === 1 ? answers : [];
    const question = {
      ...target,
      method: 'GET',
      url,
      headers: {accept},
      slot: 'heads',
      answers: expected,
    } as const;
    const reply = await ask(question);
    yield reply;
    url = nextPage(reply, host, what);
  }
}
