import {z} from 'zod';
import {collect, discard} from './body.ts';
import type {Exchange} from './exchange.ts';
import {nextLink} from './link.ts';
import {UpstreamFailure} from './port.ts';
import {header, type Reply} from './request.ts';
import type {Target} from './target.ts';

const PAGE_SIZE = 1000;
const MOST_PAGES = 10_000;
const MOST_PAGE_BYTES = 16 * 1024 * 1024;

const tagPage = z.object({tags: z.array(z.string()).nullish()});

function parsePage(bytes: Buffer, host: string): string[] {
  try {
    return tagPage.parse(JSON.parse(bytes.toString('utf8'))).tags ?? [];
  } catch {
    throw new UpstreamFailure(
      'protocol',
      host,
      'answered a tag list that is not of the form {"name": …, "tags": […]}',
    );
  }
}

/** The next page's URL; where the answer came from decides what it is relative to and where it may lead. */
function nextPage({headers, url}: Reply, host: string): URL | undefined {
  const link = nextLink(header(headers, 'link'));
  if (link === undefined) return undefined;
  const next = URL.parse(link, url.href);
  if (next?.origin === url.origin) return next;
  throw new UpstreamFailure('protocol', host, `links the next page of a tag list outside ${url.origin}`);
}

/**
 * Reads a tag list to its last page (distribution-spec, "Listing Tags").
 * @returns undefined when there is no such repository.
 * @throws UpstreamFailure when any page fails: a list learned partly is none.
 */
export async function listTags(ask: Exchange['ask'], target: Target): Promise<string[] | undefined> {
  const {host} = target.url;
  const tags: string[] = [];
  const seen = new Set<string>();
  let url: URL | undefined = new URL(target.url);
  url.searchParams.set('n', String(PAGE_SIZE));

  while (url) {
    if (seen.has(url.href)) throw new UpstreamFailure('protocol', host, 'links a page of its tag list twice');
    if (seen.size === MOST_PAGES) {
      throw new UpstreamFailure(
        'protocol',
        host,
        `has more than ${MOST_PAGES} pages of tags for ${target.repository}`,
      );
    }
    seen.add(url.href);
    // A page that is gone in the middle of the list is a failure; only a list that never was is an absence.
    const answers = seen.size === 1 ? [404] : [];
    const headers = {accept: 'application/json'};
    const reply = await ask({...target, method: 'GET', url, headers, slot: 'heads', answers});
    if (reply.status === 404) {
      discard(reply.body);
      return undefined;
    }
    tags.push(...parsePage(await collect(reply.body, host, MOST_PAGE_BYTES, 'a page of its tag list'), host));
    url = nextPage(reply, host);
  }
  return tags;
}
