import {z} from 'zod';
import type {Clock} from '../clock.ts';
import {type Descriptor, readDescriptor} from '../oci/descriptor.ts';
import {OCI_INDEX} from '../oci/media-type.ts';
import {collect, discard} from './body.ts';
import type {Exchange} from './exchange.ts';
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
  const {host} = target.url;
  const descriptors: Descriptor[] = [];
  let first = true;
  let left = MOST_BYTES;
  for await (const reply of readPages(ask, target, REFERRERS, clock)) {
    if (!isReferrersAnswer(reply)) {
      discard(reply.body);
      if (first) return undefined;
      throw new UpstreamFailure(
        'protocol',
        host,
        'answered a further page of its list of referrers as no index',
      );
    }
    first = false;
    const bytes = await collect(
      reply.body,
      host,
      Math.min(MOST_PAGE_BYTES, left),
      'a page of its list of referrers',
    );
    left -= bytes.length;
    for (const descriptor of parsePage(bytes, host)) descriptors.push(descriptor);
  }
  return descriptors;
}
