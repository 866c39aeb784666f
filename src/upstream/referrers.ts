import {z} from 'zod';
import type {Clock} from '../clock.ts';
import {type Descriptor, readDescriptor} from '../oci/descriptor.ts';
import {OCI_INDEX} from '../oci/media-type.ts';
import {collect, discard} from './body.ts';
import type {Exchange} from './exchange.ts';
import {HtmlAnswer} from './html.ts';
import {MOST_PAGE_BYTES, readPages} from './pages.ts';
import {UpstreamFailure} from './port.ts';
import {header, type Reply} from './request.ts';
import type {Target} from './target.ts';

/** Bytes of a whole list, over all of its pages. */
const MOST_BYTES = 128 * 1024 * 1024;

const REFERRERS = {
  what: 'its list of referrers',
  accept: OCI_INDEX,
  // What registries answer that have no such endpoint: unknown path, method or representation.
  answers: [404, 405, 406],
  mostPages: 1000,
};

const index = z.object({
  mediaType: z.literal(OCI_INDEX).optional(),
  manifests: z.array(
    z.unknown().transform((value, context) => {
      const descriptor = readDescriptor(value);
      if (descriptor) return descriptor;
      context.addIssue('is no descriptor');
      return z.NEVER;
    }),
  ),
});

function parsePage(bytes: Buffer, host: string): Descriptor[] {
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
 * @returns the descriptors in the upstream's order, without `data`; undefined when it has no Referrers API.
 * @throws UpstreamFailure when that cannot be told, or when any page fails: a list learned partly is none.
 */
export async function listReferrers(
  ask: Exchange['ask'],
  target: Target,
  clock: Clock,
): Promise<Descriptor[] | undefined> {
  const pages = readPages(ask, target, REFERRERS, clock);
  const first = await pages.next().catch(unlessHtml);
  if (!first || first.done) return undefined;
  if (!isReferrersAnswer(first.value)) {
    discard(first.value.body);
    return undefined;
  }
  const {host} = target.url;
  const list: PartialList = {descriptors: [], left: MOST_BYTES};
  await addPage(list, first.value, host);
  for await (const reply of pages) {
    if (!isReferrersAnswer(reply)) {
      discard(reply.body);
      const reason = 'answered a further page of its list of referrers with something that is not an index';
      throw new UpstreamFailure('protocol', host, reason);
    }
    await addPage(list, reply, host);
  }
  return list.descriptors;
}

/** A page for people says of itself that no Referrers API answered. What the fallback tag answers is judged by itself. */
function unlessHtml(error: unknown): undefined {
  if (!(error instanceof HtmlAnswer)) throw error;
}

interface PartialList {
  readonly descriptors: Descriptor[];
  /** Bytes that further pages may have. */
  left: number;
}

async function addPage(list: PartialList, {body}: Reply, host: string): Promise<void> {
  const limit = Math.min(MOST_PAGE_BYTES, list.left);
  const bytes = await collect(body, host, limit, 'a page of its list of referrers');
  list.left -= bytes.length;
  for (const descriptor of parsePage(bytes, host)) list.descriptors.push(descriptor);
}
