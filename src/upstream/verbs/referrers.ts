import {z} from 'zod';
import type {Clock} from '../../clock.ts';
import {type Descriptor, readDescriptor} from '../../oci/descriptor.ts';
import {isUnsupportedDigest} from '../../oci/digest.ts';
import {OCI_INDEX} from '../../oci/media-type.ts';
import {type SkippedReferrer, UNSUPPORTED_DIGEST} from '../../oci/referrers.ts';
import type {Exchange} from '../exchange.ts';
import {type ListedReferrers, UpstreamFailure} from '../port.ts';
import {collect, discard} from '../transport/body.ts';
import {explanationOf} from '../transport/explanation.ts';
import {HtmlAnswer} from '../transport/reply.ts';
import {header, type Reply} from '../transport/request.ts';
import type {Target} from '../transport/target.ts';
import {MAX_PAGE_BYTES, readPages} from './pages.ts';

/** Bytes of a whole list, over all of its pages. */
const MAX_BYTES = 128 * 1024 * 1024;

const REFERRERS = {
  what: 'its list of referrers',
  accept: OCI_INDEX,
  // What registries answer that have no such endpoint: unknown path, method or representation.
  answers: [404, 405, 406],
  mostPages: 1000,
};

/** A descriptor, or one that could be followed but for the algorithm of its digest. */
type Entry = {descriptor: Descriptor} | {skipped: SkippedReferrer};

const unsupported = z.object({digest: z.string().refine(isUnsupportedDigest)});

const entry = z.unknown().transform((value, context): Entry => {
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

function parsePage(bytes: Buffer, host: string): Entry[] {
  try {
    return index.parse(JSON.parse(bytes.toString('utf8'))).manifests;
  } catch {
    const reason = `answered a list of referrers as ${OCI_INDEX} that does not read as one`;
    throw new UpstreamFailure('protocol', host, reason);
  }
}

/**
 * Does the answer come from a Referrers API? An HTML page of status 200 does not. The type must be exact
 * (distribution-spec, "Listing Referrers": the content type MUST be that of an index); clients that compare it take
 * one with parameters for no API either.
 */
const isReferrersAnswer = ({status, headers}: Reply): boolean =>
  status === 200 && header(headers, 'content-type')?.trim().toLowerCase() === OCI_INDEX;

/**
 * Reads all referrers of a subject from the upstream's Referrers API (distribution-spec, "Listing Referrers"),
 * unfiltered and to the last page. Redirects are followed and the final answer is judged.
 * @param target its URL is that of the list.
 * @returns the descriptors in the upstream's order, without `data`, and the entries that had to be left out; else what
 * the answer says instead of a list.
 * @throws UpstreamFailure when that cannot be told, or when any page fails: a list learned partly is none.
 */
export async function listReferrers(
  ask: Exchange['ask'],
  target: Target,
  clock: Clock,
): Promise<ListedReferrers | 'no-api' | 'unknown-repository'> {
  const pages = readPages(ask, target, REFERRERS, clock);
  const first = await pages.next().catch(unlessHtml);
  if (!first || first.done) return 'no-api';
  const {host} = target.url;
  if (!isReferrersAnswer(first.value)) return insteadOfList(first.value, host);
  const list: PartialList = {descriptors: [], skipped: [], left: MAX_BYTES};
  await addPage(list, first.value, host);
  for await (const reply of pages) {
    if (!isReferrersAnswer(reply)) {
      discard(reply.body);
      const reason = 'answered a further page of its list of referrers with something that is not an index';
      throw new UpstreamFailure('protocol', host, reason);
    }
    await addPage(list, reply, host);
  }
  const {descriptors, skipped} = list;
  return {descriptors, skipped};
}

/** A page for people says of itself that no Referrers API answered. What the fallback tag answers is judged by itself. */
function unlessHtml(error: unknown): undefined {
  if (!(error instanceof HtmlAnswer)) throw error;
}

/** A registry with the API says of a repository that it does not know yet that its name is unknown. */
async function insteadOfList(reply: Reply, host: string): Promise<'no-api' | 'unknown-repository'> {
  if (reply.status !== 404) {
    discard(reply.body);
    return 'no-api';
  }
  const {code} = await explanationOf(reply, host);
  return code === 'NAME_UNKNOWN' ? 'unknown-repository' : 'no-api';
}

interface PartialList extends ListedReferrers {
  /** Bytes that further pages may have. */
  left: number;
}

async function addPage(list: PartialList, {body}: Reply, host: string): Promise<void> {
  const limit = Math.min(MAX_PAGE_BYTES, list.left);
  const bytes = await collect(body, host, limit, 'a page of its list of referrers');
  list.left -= bytes.length;
  for (const item of parsePage(bytes, host)) {
    if ('descriptor' in item) list.descriptors.push(item.descriptor);
    else list.skipped.push(item.skipped);
  }
}
