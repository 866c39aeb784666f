import {sha256} from '../../rig/image.ts';

const INDEX = 'application/vnd.oci.image.index.v1+json';
const ACCEPT = [
  INDEX,
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
].join();

interface Descriptor {
  digest: string;
  size: number;
}

/** The references of a manifest of any kind (image-spec; Docker's own kinds have the same fields). */
interface Manifest {
  config?: Descriptor;
  layers?: Descriptor[];
  manifests?: Descriptor[];
  subject?: Descriptor;
}

/**
 * Pulls a manifest and everything below it from the registry at `url`.
 * @returns its digest, of its bytes
 * @throws Error naming what is missing or does not match its descriptor.
 */
export async function pullWhole(url: string, repository: string, reference: string): Promise<string> {
  const bytes = await get(`${url}/v2/${repository}/manifests/${reference}`);
  const digest = sha256(bytes);
  if (reference.includes(':') && digest !== reference)
    throw new Error(`${url} returned ${digest} for ${reference}`);
  const manifest: Manifest = JSON.parse(bytes.toString());
  for (const {digest: child} of manifest.manifests ?? []) await pullWhole(url, repository, child);
  for (const blob of [...(manifest.config ? [manifest.config] : []), ...(manifest.layers ?? [])]) {
    const found = await get(`${url}/v2/${repository}/blobs/${blob.digest}`);
    if (sha256(found) !== blob.digest || found.length !== blob.size)
      throw new Error(`${url} returned ${found.length} bytes with ${sha256(found)} for ${blob.digest}`);
  }
  return digest;
}

/**
 * Pulls everything that a list of referrers names.
 * @param list the path of the list: of the Referrers API, or of a fallback tag.
 * @returns the digests, sorted; none when there is no such list
 * @throws Error when one of them has another subject, or as `pullWhole` does.
 */
export async function pullReferrers(
  url: string,
  repository: string,
  list: string,
  subject: string,
): Promise<string[]> {
  const response = await fetch(`${url}/v2/${repository}/${list}`, {headers: {accept: ACCEPT}});
  const body = await response.text();
  if (response.status === 404) return [];
  if (response.status !== 200) throw new Error(`${url} has no list: ${response.status} ${body}`);
  const {manifests = []}: Manifest = JSON.parse(body);
  for (const {digest} of manifests) {
    await pullWhole(url, repository, digest);
    const bytes = await get(`${url}/v2/${repository}/manifests/${digest}`);
    const manifest: Manifest = JSON.parse(bytes.toString());
    if (manifest.subject?.digest !== subject) throw new Error(`${digest} does not refer to ${subject}`);
  }
  return manifests.map(({digest}) => digest).sort();
}

/** Where the two kinds of lists are, below the repository. */
export const LISTS = {
  api: (subject: string): string => `referrers/${subject}`,
  tag: (subject: string): string => `manifests/${subject.replace(':', '-')}`,
} as const;

async function get(url: string): Promise<Buffer> {
  const response = await fetch(url, {headers: {accept: ACCEPT}});
  const bytes = Buffer.from(await response.arrayBuffer());
  if (response.status === 200) return bytes;
  throw new Error(`${url} answers ${response.status} ${bytes.toString().slice(0, 300)}`);
}
