import {ANONYMOUS} from '../caller.ts';
import {algorithmOf, digestOf} from '../oci/digest.ts';
import {readManifest} from '../oci/manifest.ts';
import {isDigestReference, type RepositoryName} from '../oci/name.ts';
import {type Upstream, UpstreamFailure, type UpstreamWriter} from '../upstream/port.ts';
import type {ArtifactTarget} from './target.ts';

/** A repository of a registry. @param upstream is closed with the target */
export function createRegistryTarget(
  upstream: Upstream & UpstreamWriter,
  repository: RepositoryName,
): ArtifactTarget {
  const {host} = upstream;
  return {
    name: `${host}/${repository}`,
    async manifest(reference) {
      const manifest = await upstream.getManifest(repository, reference, ANONYMOUS, 'no-cache');
      if (!manifest) return undefined;
      const {bytes} = manifest;
      const claimed = isDigestReference(reference) ? reference : manifest.digest;
      const digest = digestOf(bytes, claimed && algorithmOf(claimed));
      if (claimed && digest !== claimed) {
        throw new UpstreamFailure(
          'protocol',
          host,
          `answered ${claimed} with bytes whose digest is ${digest}`,
        );
      }
      return {digest, bytes, mediaType: manifest.mediaType ?? readManifest(bytes).mediaType ?? ''};
    },
    async referrers(subject) {
      const listed = await upstream.listReferrers(repository, subject, ANONYMOUS);
      if (typeof listed === 'string') return undefined;
      const [skipped] = listed.skipped;
      if (!skipped) return listed.descriptors;
      const reason = `lists a referrer of ${subject} that cannot be read: ${skipped.digest} ${skipped.reason}`;
      throw new UpstreamFailure('protocol', host, reason);
    },
    pushBlob: (blob) => upstream.pushBlob(repository, blob, ANONYMOUS),
    async putManifest(reference, manifest) {
      await upstream.putManifest(repository, reference, manifest, ANONYMOUS);
    },
    async close() {
      upstream.close();
    },
  };
}
