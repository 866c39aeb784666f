import type {ExecutionContext} from 'ava';
import {type LegacyRegistry, startLegacyRegistry} from '../../demo/legacy-registry.ts';
import {fallbackTag} from '../../src/oci/referrers.ts';
import type {ManifestContent} from './content.ts';

export interface Legacy extends LegacyRegistry {
  /** `docker://HOST/team/app` */
  readonly target: string;
  put(reference: string, manifest: {bytes: Uint8Array; mediaType: string}): Promise<void>;
  /** The manifest under a reference; undefined when there is none. */
  get(reference: string): Promise<{bytes: Buffer; mediaType: string | null} | undefined>;
  /** The digests that the fallback tag of a subject names; undefined when there is no such tag. */
  fallback(subject: string): Promise<string[] | undefined>;
}

/** A registry in memory, with one image under the tag 1; ended with the test. */
export async function startLegacy(
  t: ExecutionContext,
  image: ManifestContent,
  options: {referrers?: boolean} = {},
): Promise<Legacy> {
  const registry = await startLegacyRegistry(options);
  t.teardown(registry.stop);
  const urlOf = (reference: string): string => `${registry.url}/v2/team/app/manifests/${reference}`;
  const legacy: Legacy = {
    ...registry,
    target: `docker://${registry.host}/team/app`,
    async put(reference, {bytes, mediaType}) {
      const headers = {'content-type': mediaType};
      const {status} = await fetch(urlOf(reference), {method: 'PUT', body: Buffer.from(bytes), headers});
      t.is(status, 201);
    },
    async get(reference) {
      const response = await fetch(urlOf(reference));
      const bytes = Buffer.from(await response.arrayBuffer());
      return response.status === 200 ? {bytes, mediaType: response.headers.get('content-type')} : undefined;
    },
    async fallback(subject) {
      const index = await legacy.get(fallbackTag(subject));
      return (
        index && JSON.parse(index.bytes.toString()).manifests.map(({digest}: {digest: string}) => digest)
      );
    },
  };
  await legacy.put('1', image);
  registry.requests.length = 0;
  return legacy;
}
