import {setTimeout as delay} from 'node:timers/promises';
import {type Content, content, descriptor, type Image, pushBlob, pushManifest} from '../../rig/image.ts';
import {LISTS} from './content.ts';

const INDEX = 'application/vnd.oci.image.index.v1+json';
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const MAX_ATTEMPTS = 10;

interface Entry {
  digest: string;
}

/**
 * Attaches as clients do to a registry without the Referrers API: reads the fallback tag, adds to it, and writes it
 * without `If-Match`, so that concurrent writes are lost (dist-spec, Referrers Tag Schema).
 * @param between awaited between reading and writing the tag.
 */
export async function attachByTag(
  url: string,
  {repository, index}: Image,
  number: number,
  between: () => Promise<void>,
): Promise<void> {
  const config = content('application/vnd.example.direct+json', Buffer.from(JSON.stringify({number})));
  await pushBlob(url, repository, config);
  const body = {
    schemaVersion: 2,
    mediaType: MANIFEST,
    config: descriptor(config),
    layers: [],
    subject: descriptor(index),
  };
  const referrer = json(MANIFEST, body);
  await pushManifest(url, repository, referrer.digest, referrer);
  const manifests = [...(await readTag(url, repository, index.digest)), descriptor(referrer)];
  await between();
  const tag = LISTS.tag(index.digest).replace('manifests/', '');
  const list = json(INDEX, {schemaVersion: 2, mediaType: INDEX, manifests});
  await persistently(() => pushManifest(url, repository, tag, list));
}

/** The digests that a fallback tag names; none when there is no such tag. @throws Error when it cannot be read */
export const readTag = (url: string, repository: string, subject: string): Promise<Entry[]> =>
  persistently(async () => {
    const list = `${url}/v2/${repository}/${LISTS.tag(subject)}`;
    const response = await fetch(list, {headers: {accept: INDEX}});
    const body = await response.text();
    if (response.status === 404) return [];
    if (response.status !== 200) throw new Error(`${list} answers ${response.status} ${body.slice(0, 300)}`);
    const {manifests}: {manifests: Entry[]} = JSON.parse(body);
    return manifests;
  });

/** Retries 500, as clients do: docker-registry 2.8 sends it for a tag that is just being written. */
async function persistently<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; attempt < MAX_ATTEMPTS; attempt += 1) {
    try {
      return await work();
    } catch {
      await delay(100);
    }
  }
  return work();
}

const json = (mediaType: string, value: unknown): Content =>
  content(mediaType, Buffer.from(JSON.stringify(value)));
