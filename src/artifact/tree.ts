import {mapConcurrently} from '../concurrency.ts';
import type {Descriptor} from '../oci/descriptor.ts';
import type {Digest} from '../oci/digest.ts';
import {listOf} from './list.ts';
import {ArtifactError, type ArtifactTarget} from './target.ts';

/** A referrer with its own referrers, such as the signature of an SBOM. */
export interface ReferrerNode extends Descriptor {
  referrers: ReferrerNode[];
}

/** Lists that are asked for at a time. */
const CONCURRENCY = 4;
/** No real tree is this deep. A registry that makes up referrers would never come to an end. */
const MAX_LEVELS = 32;
/** Each list takes at least one request. Real images have a few dozen; a larger tree than this is made up. */
const MAX_LISTS = 100_000;

/**
 * All direct and indirect referrers of a subject. A digest that a registry names twice, or in a circle, is followed
 * once.
 * @param artifactTypes which direct referrers are included, as for `listOf`; all of their own referrers are
 * @param maxLists how many lists are asked for at most
 * @throws ArtifactError when the tree is too large; ArtifactError or UpstreamFailure when a list could not be read
 */
export async function treeOf(
  target: ArtifactTarget,
  subject: Digest,
  artifactTypes?: readonly string[],
  maxLists = MAX_LISTS,
): Promise<ReferrerNode[]> {
  const seen = new Set<Digest>([subject]);
  const nodesOf = (descriptors: readonly Descriptor[]): ReferrerNode[] =>
    descriptors.map((descriptor) => ({...descriptor, referrers: []}));

  const roots = nodesOf((await listOf(target, subject, artifactTypes)).manifests);
  let level = roots;
  for (let depth = 1; level.length > 0; depth++) {
    if (depth > MAX_LEVELS) {
      throw new ArtifactError(
        `${target.name} lists referrers of referrers of ${subject} over more than ${MAX_LEVELS} levels.`,
      );
    }
    const open = level.filter(({digest}) => isFirst(seen, digest));
    if (seen.size > maxLists) {
      throw new ArtifactError(
        `${target.name} lists more than ${maxLists} referrers of referrers of ${subject}.`,
      );
    }
    await mapConcurrently(open, CONCURRENCY, async (node) => {
      node.referrers = nodesOf((await listOf(target, node.digest)).manifests);
    });
    level = open.flatMap(({referrers}) => referrers);
  }
  return roots;
}

/** Remembers a digest. @returns whether it had not been seen */
function isFirst(seen: Set<Digest>, digest: Digest): boolean {
  if (seen.has(digest)) return false;
  seen.add(digest);
  return true;
}
