import {mapConcurrently} from '../concurrency.ts';
import type {Descriptor} from '../oci/descriptor.ts';
import type {Digest} from '../oci/digest.ts';
import {listOf} from './list.ts';
import {ArtifactError, type ArtifactTarget} from './target.ts';

/** A referrer with what refers to it in turn: the signature of an SBOM. */
export interface ReferrerNode extends Descriptor {
  referrers: ReferrerNode[];
}

/** Lists that are asked for at once. */
const CONCURRENCY = 4;
/** Nobody signs so many signatures; a registry that makes them up would never come to an end. */
const MAX_LEVELS = 32;
/** Each list costs at least one request. Real images have a few dozen; a tree with more than this is made up. */
const MAX_LISTS = 100_000;

/**
 * Everything that refers to a subject, and what refers to that, to the last. A digest that a registry names twice, or
 * in a circle, is followed once.
 * @param artifactTypes which direct referrers are taken, as for `listOf`; what refers to these is taken whole.
 * @param maxLists how many lists are asked for before the tree is given up.
 * @throws ArtifactError or UpstreamFailure when any list cannot be told.
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
