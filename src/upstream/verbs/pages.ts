import LinkHeader from 'http-link-header';
import type {Clock} from '../../clock.ts';
import type {ApiRequest, Ask, Resource} from '../api-request.ts';
import {UpstreamFailure} from '../port.ts';
import {header, type Reply} from '../transport/reply.ts';

/** A list that an upstream returns in pages. */
export interface PagedList<Page> {
  /** For failures, e.g. `its tag list`. */
  what: string;
  accept: string;
  /** Statuses besides 2xx that answer the request for the first page. */
  expected: readonly number[];
  maxPages: number;
  /** Called before each page is requested; what it throws ends the list. */
  spend?(): void;
  /** Consumes the reply, once for each attempt. @throws SpoiledAnswer when the content is not a page */
  read(reply: Reply): Promise<Page>;
}

/** Bytes of the largest page that is read. */
export const MAX_PAGE_BYTES = 16 * 1024 * 1024;

/**
 * For all pages of a list: at half a second each, hundreds of thousands of tags. Each page has its own limits; without
 * this one, a list whose pages each stay just within them could take days.
 */
const MAX_LIST_MS = 30 * 60_000;

/** A `Link` field that cannot be parsed, so that it is unknown whether there is a next page. */
export class UnreadableLink extends Error {
  override readonly name = 'UnreadableLink';

  constructor(field: string, options?: ErrorOptions) {
    super(`sends a Link field that cannot be parsed: ${field.slice(0, 200)}`, options);
  }
}

/** RFC 9110, section 5.6.2. A parameter's name may end in an asterisk, which is one of these characters. */
const TOKEN = /^[\w!#$%&'*+.^`|~-]+$/;

/**
 * Finds the target of the link to the next page in a `Link` field (RFC 8288, section 3), as it is written there.
 * @returns undefined when there is no such link.
 * @throws UnreadableLink, because an unreadable field does not mean the end of a list.
 */
export function nextLink(field: string | undefined): string | undefined {
  const links = parseLinks(field ?? '');
  return links.find(({rel = ''}) => rel.toLowerCase().split(/\s+/).includes('next'))?.uri;
}

interface LinkTarget {
  uri: string;
  rel?: string;
}

function parseLinks(field: string): LinkTarget[] {
  // The library mistakes a space before a comma for the beginning of a parameter.
  const tight = field.replaceAll(/\s+/g, ' ').replaceAll(/ (?=[,;])/g, '');
  try {
    const links: LinkTarget[] = LinkHeader.parse(tight).refs;
    // The library reads past the end of a parameter without a value, or of a quoted string without a closing quote, and
    // may so miss the link to the next page.
    const names = links.flatMap((link) => Object.keys(link));
    const quotes = tight.match(/(?<!\\)"/g)?.length ?? 0;
    if (names.every((name) => TOKEN.test(name)) && quotes % 2 === 0) return links;
  } catch (error) {
    throw new UnreadableLink(field, {cause: error});
  }
  throw new UnreadableLink(field);
}

/** The next page's URL, relative to the URL that answered; it must have the same origin. */
function nextPage({headers, url}: Reply, host: string, what: string): URL | undefined {
  const link = linkToNext(header(headers, 'link'), host);
  if (link === undefined) return undefined;
  const next = URL.parse(link, url.href);
  if (next?.origin === url.origin) return next;
  throw new UpstreamFailure('protocol', host, `links the next page of ${what} outside ${url.origin}`);
}

/** @throws UpstreamFailure, because a list whose end is unknown cannot be used. */
function linkToNext(field: string | undefined, host: string): string | undefined {
  try {
    return nextLink(field);
  } catch (error) {
    if (!(error instanceof UnreadableLink)) throw error;
    throw new UpstreamFailure('protocol', host, error.message, {cause: error});
  }
}

/**
 * Requests page after page by following `Link` (RFC 8288) on the host that answered the first request. A spoiled page is
 * requested again.
 * @throws UpstreamFailure when a page fails, when the links lead to another host or in a circle, or when all pages
 * together take too long: an incomplete list is not returned.
 */
export async function* readPages<Page>(
  ask: Ask,
  resource: Resource,
  {what, accept, expected, maxPages, spend, read}: PagedList<Page>,
  clock: Clock,
): AsyncGenerator<Page, void> {
  const {host} = resource.url;
  const seen = new Set<string>();
  const began = clock.monotonic();
  let url: URL | undefined = resource.url;
  while (url) {
    if (seen.has(url.href)) throw new UpstreamFailure('protocol', host, `links a page of ${what} twice`);
    if (seen.size === maxPages) {
      const reason = `has more than ${maxPages} pages of ${what} for ${resource.repository}`;
      throw new UpstreamFailure('protocol', host, reason);
    }
    const spent = clock.monotonic() - began;
    if (spent > MAX_LIST_MS) {
      const reason = `sent only ${seen.size} pages of ${what} in ${spent} ms, and there are more`;
      throw new UpstreamFailure('timeout', host, reason);
    }
    seen.add(url.href);
    spend?.();
    const request: ApiRequest = {
      ...resource,
      method: 'GET',
      url,
      headers: {accept},
      slot: 'heads',
      // A missing first page means that there is no list; a missing later page is a failure.
      expected: seen.size === 1 ? expected : [],
    };
    const {page, reply} = await ask(request, async (reply) => ({page: await read(reply), reply}));
    yield page;
    url = nextPage(reply, host, what);
  }
}
