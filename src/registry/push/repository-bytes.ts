import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {type Change, fullName, type Metadata} from '../../storage/metadata.ts';
import {createKeyedMutex} from '../keyed.ts';
import type {Route} from '../namespace.ts';

/** A blob that is to be kept. */
interface AddedBlob {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

/** Keeps the blobs of each repository within `limits.repository`. Copies of an upstream's do not count. */
export interface RepositoryBytes {
  /** @throws OciError DENIED when not one byte more may be pushed to this repository */
  refuseWhenFull(route: Route): Promise<void>;
  /**
   * Runs the commit that keeps these blobs. Where there is a limit, those of one repository run one at a time, so that
   * together they do not exceed it.
   * @throws OciError DENIED, and runs nothing, when the repository would keep too much; what `commit` throws
   */
  adding<T>(route: Route, blobs: readonly AddedBlob[], commit: () => Promise<T>): Promise<T>;
}

/** Links that are read before other requests run: an index may list 40,000 layers. */
const LINKS_PER_TURN = 1000;

export const createRepositoryBytes = (
  metadata: Pick<Metadata, 'blobLink' | 'localBlobBytes'>,
): RepositoryBytes => {
  const mutex = createKeyedMutex();

  /** Bytes that are not counted yet; of a blob that is named twice, once. */
  async function newBytes({repository}: Route, blobs: readonly AddedBlob[]): Promise<number> {
    const sizes = new Map(blobs.map(({digest, size}) => [digest, size]));
    let bytes = 0;
    for (const [index, [digest, size]] of [...sizes].entries()) {
      if (index % LINKS_PER_TURN === LINKS_PER_TURN - 1) await nextTurn();
      if ((await metadata.blobLink(repository, digest))?.origin !== 'local') bytes += size;
    }
    return bytes;
  }

  return {
    async refuseWhenFull(route) {
      const {repository: most} = route.registry.limits;
      if (most === undefined) return;
      const kept = await metadata.localBlobBytes(route.repository);
      if (kept >= most) throw exceeded(route, most, kept, 0);
    },

    async adding(route, blobs, commit) {
      const {repository: most} = route.registry.limits;
      if (most === undefined || blobs.length === 0) return commit();
      return mutex.run(fullName(route.repository), async () => {
        const more = await newBytes(route, blobs);
        const kept = await metadata.localBlobBytes(route.repository);
        if (more > 0 && kept + more > most) throw exceeded(route, most, kept, more);
        return commit();
      });
    },
  };
};

/** The blobs that a commit keeps from now on. */
export const keptBlobs = (changes: readonly Change[]): AddedBlob[] =>
  changes.flatMap((change) =>
    change.type === 'blob.link' && change.origin === 'local'
      ? [{digest: change.digest, size: change.size}]
      : [],
  );

const exceeded = ({registry, asked}: Route, most: number, kept: number, more: number): OciError =>
  new OciError('DENIED', {
    message: `registries.${registry.name}.limits.repository allows ${most} bytes of pushed blobs in each repository, and ${asked} has ${kept}${more === 0 ? '' : `, to which this would add ${more}`}: delete images that are not needed, whose blobs go when garbage is next collected, or ask the operator to raise the limit`,
    detail: {name: asked, kept, more},
    limit: 'registries.NAME.limits.repository',
  });
