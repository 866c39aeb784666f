import * as z from 'zod';
import type {Clock} from '../../clock.ts';
import {type Descriptor, readDescriptor} from '../../oci/descriptor.ts';
import {isUnsupportedDigest} from '../../oci/digest.ts';
import {OCI_INDEX} from '../../oci/media-type.ts';
import {type SkippedReferrer, UNSUPPORTED_DIGEST} from '../../oci/referrers.ts';
import type {Ask, Resource} from '../api-request.ts';
import {type ListedReferrers, SpoiledAnswer, UpstreamFailure} from '../port.ts';
import {collect, discard} from '../transport/body.ts';
import {explanationOf, HtmlAnswer, header, type Reply} from '../transport/reply.ts';
import {MAX_PAGE_BYTES, readPages} from './pages.ts';

/** Bytes of all pages of a list. */
const MAX_BYTES = 128 * 1024 * 1024;

const REFERRERS = {
  what: 'its list of referrers',
  accept: OCI_INDEX,
  // From registries without this endpoint: unknown path, method or representation.
  expected: [404, 405, 406],
  maxPages: 1000,
};

/** What a reply says that is not a list. */
type InsteadOfList = 'no-api' | 'unknown-repository';

/** A descriptor, or an entry whose digest has an algorithm that we do not support. */
type ListEntry = {descriptor: Descriptor} | {skipped: SkippedReferrer};

const unsupported = z.object({digest: z.string().refine(isUnsupportedDigest)});

const entry = z.unknown().transform((value, context): ListEntry => {
  const descriptor = readDescriptor(value);
  if (descriptor) return {descriptor};
  const {data} = unsupported.safeParse(value);
  if (data) return {skipped: {digest: data.digest, reason: UNSUPPORTED_DIGEST}};
  context.addIssue('is not a descriptor');
  return z.NEVER;
});

const index = z.object({
  mediaType: z.literal(OCI_INDEX).optional(),
  manifests: z.array(entry),
});

function parsePage(bytes: Buffer, host: string): ListEntry[] {
  try {
    return index.parse(JSON.parse(bytes.toString('utf8'))).manifests;
  } catch {
    const reason = `sent a list of referrers as ${OCI_INDEX} that is not a valid index`;
    throw new SpoiledAnswer('protocol', host, reason);
  }
}

/**
 * Whether a reply comes from a Referrers API; an HTML page with status 200 does not. The media type must match exactly
 * (distribution-spec, "Listing Referrers": the content type MUST be that of an index). Clients that compare it do not
 * accept one with parameters either.
 */
const isReferrersAnswer = ({status, headers}: Reply): boolean =>
  status === 200 && header(headers, 'content-type')?.trim().toLowerCase() === OCI_INDEX;

/**
 * Reads all referrers of a subject from the upstream's Referrers API (distribution-spec, "Listing Referrers"), unfiltered
 * and to the last page. Redirects are followed, and the last reply is judged.
 * @param resource its URL is that of the list.
 * @returns the descriptors in the upstream's order, without `data`, and the entries that had to be skipped; or what the
 * reply says instead of a list.
 * @throws UpstreamFailure when that is unclear, or when any page fails: an incomplete list is not returned.
 */
export async function listReferrers(
  ask: Ask,
  resource: Resource,
  clock: Clock,
): Promise<ListedReferrers | InsteadOfList> {
  const {host} = resource.url;
  let left = MAX_BYTES;
  const read = async (reply: Reply): Promise<ListEntry[] | InsteadOfList> => {
    if (!isReferrersAnswer(reply)) return insteadOfList(reply, host);
    const limit = Math.min(MAX_PAGE_BYTES, left);
    const bytes = await collect(reply.body, host, limit, 'a page of its list of referrers');
    const entries = parsePage(bytes, host);
    left -= bytes.length;
    return entries;
  };
  const pages = readPages(ask, resource, {...REFERRERS, read}, clock);
  const first = await pages.next().catch(unlessHtml);
  if (!first || first.done) return 'no-api';
  if (!Array.isArray(first.value)) return first.value;
  const list: ListedReferrers = {descriptors: [], skipped: []};
  addPage(list, first.value);
  for await (const page of pages) {
    if (!Array.isArray(page)) {
      const reason = 'answered a further page of its list of referrers with something that is not an index';
      throw new UpstreamFailure('protocol', host, reason);
    }
    addPage(list, page);
  }
  return list;
}

/** An HTML page means that there is no Referrers API here. A page in answer to the fallback tag is judged separately. */
function unlessHtml(error: unknown): undefined {
  if (!(error instanceof HtmlAnswer)) throw error;
}

/** A registry that has the API answers NAME_UNKNOWN for a repository that does not exist yet. */
async function insteadOfList(reply: Reply, host: string): Promise<InsteadOfList> {
  if (reply.status !== 404) {
    discard(reply.body);
    return 'no-api';
  }
  const {code} = await explanationOf(reply, host);
  return code === 'NAME_UNKNOWN' ? 'unknown-repository' : 'no-api';
}

function addPage(list: ListedReferrers, page: readonly ListEntry[]): void {
  for (const item of page) {
    if ('descriptor' in item) list.descriptors.push(item.descriptor);
    else list.skipped.push(item.skipped);
  }
}
