import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Clock} from '../../clock.ts';
import type {CopiedBlobLink, Metadata} from '../../storage/metadata.ts';

export interface LinkBoundParts {
  metadata: Pick<Metadata, 'copiedBlobLinks' | 'blobLink' | 'commit'>;
  clock: Clock;
  /** The most links to copies of blobs that are not stored; a million by default. */
  maxLinks?: number;
}

const MAX_LINKS = 1_000_000;
/** How long a link to a blob that is not stored lasts after the upstream last confirmed it. */
const LINK_LIFETIME_MS = 365 * 24 * 60 * 60 * 1000;
/** What is left of too many, so that a single one more does not begin it again. */
const FILL = 0.99;
/** Links that are read, or forgotten by one commit, without giving way to requests. */
const LINKS_PER_TURN = 500;

/**
 * Bounds the links that say what a repository may serve without asking its upstream. They outlive the bytes of evicted
 * blobs, and would grow without end. Those to stored blobs, and to what was pushed here, are neither counted nor removed;
 * one that a linked manifest still needs goes by its age alone. What is forgotten is asked about again.
 * @returns a function that walks over all links in small steps, and ends early when the signal is aborted
 */
export const createLinkBound = (parts: LinkBoundParts) => async (signal: AbortSignal) => {
  const {clock, maxLinks = MAX_LINKS} = parts;
  const expiry = clock.now() - LINK_LIFETIME_MS;
  let count = 0;
  for await (const unstored of unstoredLinks(parts, signal)) {
    const expired = unstored.filter(({linkedAt}) => linkedAt < expiry);
    if (expired.length > 0) await forget(parts, expired, expiry);
    count += unstored.length - expired.length;
  }
  if (count <= maxLinks) return;
  for await (const unstored of unstoredLinks(parts, signal)) {
    for (let rest = unstored; rest.length > 0 && count > maxLinks; ) {
      const oldest = rest.slice(0, count - Math.floor(maxLinks * FILL));
      count -= await forget(parts, oldest, expiry);
      rest = rest.slice(oldest.length);
    }
    if (count <= maxLinks) return;
  }
};

/** The links to blobs that are not stored, oldest first, in pages. */
async function* unstoredLinks(
  {metadata}: LinkBoundParts,
  signal: AbortSignal,
): AsyncGenerator<CopiedBlobLink[], void> {
  let after: CopiedBlobLink['cursor'] | undefined;
  while (!signal.aborted) {
    const page = await metadata.copiedBlobLinks(after, LINKS_PER_TURN);
    after = page.at(-1)?.cursor;
    if (!after) return;
    yield page.filter(({isStored}) => !isStored);
    await nextTurn();
  }
}

/** @param namedBefore those that a linked manifest names stay unless they are older. @returns how many are gone */
async function forget(
  {metadata}: LinkBoundParts,
  links: readonly CopiedBlobLink[],
  namedBefore: number,
): Promise<number> {
  await metadata.commit(
    links.map(({repository, digest, linkedAt}) => ({
      type: 'blob.forget',
      repository,
      digest,
      linkedBefore: linkedAt + 1,
      namedBefore,
    })),
  );
  let gone = 0;
  for (const {repository, digest} of links) if (!(await metadata.blobLink(repository, digest))) gone += 1;
  return gone;
}
