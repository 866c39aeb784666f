import * as z from 'zod';
import type {Clock} from '../../clock.ts';
import type {Ask, Resource} from '../api-request.ts';
import {SpoiledAnswer} from '../port.ts';
import {collect, discard} from '../transport/body.ts';
import type {Reply} from '../transport/reply.ts';
import {MAX_PAGE_BYTES, readPages} from './pages.ts';

const PAGE_SIZE = 1000;
/** Bytes of all pages of a list: well over a million tags. */
const MAX_LIST_BYTES = 64 * 1024 * 1024;
const TAG_LIST = {what: 'its tag list', accept: 'application/json', expected: [404], maxPages: 10_000};

/** For a repository without tags, registries send null or omit the key. An object with neither key is not a tag list. */
const tagPage = z.union([
  z.object({tags: z.array(z.string()).nullable()}),
  z.object({name: z.string(), tags: z.undefined()}),
]);

function parsePage(bytes: Buffer, host: string): string[] {
  try {
    return tagPage.parse(JSON.parse(bytes.toString('utf8'))).tags ?? [];
  } catch {
    const reason = 'sent a tag list that is not of the form {"name": …, "tags": […]}';
    throw new SpoiledAnswer('protocol', host, reason);
  }
}

/** Names what is too large: the page itself, or the list with this page. */
const whatPage = (limit: number): string =>
  limit === MAX_PAGE_BYTES
    ? 'a page of its tag list'
    : `its tag list is larger than ${MAX_LIST_BYTES} bytes in all: its last page`;

/**
 * Reads a tag list to its last page (distribution-spec, "Listing Tags").
 * @param spend called before each page is requested; what it throws ends the list.
 * @returns undefined when there is no such repository.
 * @throws UpstreamFailure when any page fails, or all of them are too large: an incomplete list is not returned.
 */
export async function listTags(
  ask: Ask,
  resource: Resource,
  clock: Clock,
  spend: () => void = () => {},
): Promise<string[] | undefined> {
  const {host} = resource.url;
  const tags: string[] = [];
  let left = MAX_LIST_BYTES;
  const url = new URL(resource.url);
  url.searchParams.set('n', String(PAGE_SIZE));
  const read = async (reply: Reply): Promise<string[] | undefined> => {
    if (reply.status === 404) {
      discard(reply.body);
      return undefined;
    }
    const limit = Math.min(MAX_PAGE_BYTES, left);
    const page = await collect(reply.body, host, limit, whatPage(limit));
    const names = parsePage(page, host);
    left -= page.length;
    return names;
  };
  for await (const page of readPages(ask, {...resource, url}, {...TAG_LIST, spend, read}, clock)) {
    if (!page) return undefined;
    // A loop, because some registries send all tags in one page: more than a call can have arguments.
    for (const tag of page) tags.push(tag);
  }
  return tags;
}

/** Whether the caller is shown any tag; reads as little of the list as the upstream permits. @throws UpstreamFailure */
export function hasTags(ask: Ask, resource: Resource): Promise<boolean> {
  const url = new URL(resource.url);
  url.searchParams.set('n', '1');
  const {expected, accept} = TAG_LIST;
  const request = {
    ...resource,
    url,
    method: 'GET' as const,
    headers: {accept},
    slot: 'heads' as const,
    expected,
  };
  return ask(request, async (reply) => {
    if (reply.status === 404) {
      discard(reply.body);
      return false;
    }
    const page = await collect(reply.body, url.host, MAX_PAGE_BYTES, whatPage(MAX_PAGE_BYTES));
    return parsePage(page, url.host).length > 0;
  });
}
