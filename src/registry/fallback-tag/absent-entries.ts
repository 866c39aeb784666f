import {ANONYMOUS} from '../../caller.ts';
import {isDigest} from '../../oci/digest.ts';
import {UpstreamRefusal} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';

/** By which registries refuse an index that names what they do not have. */
const UNKNOWN = new Set<string | undefined>(['MANIFEST_BLOB_UNKNOWN', 'MANIFEST_UNKNOWN']);
/** Entries that are asked about: so many in all, and side by side. */
const MOST = 1000;
const CONCURRENCY = 8;

/**
 * Distribution takes no index that names what is gone. What others left in a fallback tag of manifests that they have
 * deleted would keep everybody's entries out of it from then on.
 * @param entries of the index that was refused, by digest
 * @returns those of them that the upstream has
 * @throws the refusal, when it had no such reason
 */
export async function lessAbsent(
  {registry, repository}: Route,
  entries: ReadonlyMap<string, string>,
  refusal: unknown,
): Promise<ReadonlyMap<string, string>> {
  const isDoubted = refusal instanceof UpstreamRefusal && UNKNOWN.has(refusal.code);
  if (!isDoubted || entries.size > MOST) throw refusal;
  const digests = [...entries.keys()].filter(isDigest);
  const there = new Map(entries);
  for (let at = 0; at < digests.length; at += CONCURRENCY) {
    await Promise.all(
      digests.slice(at, at + CONCURRENCY).map(async (digest) => {
        const head = await registry.upstream.headManifest(repository.name, digest, ANONYMOUS);
        if (!head) there.delete(digest);
      }),
    );
  }
  if (there.size === entries.size) throw refusal;
  return there;
}
