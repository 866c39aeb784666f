import {randomBytes} from 'node:crypto';
import {OCI_INDEX, OCI_MANIFEST} from '../../src/oci/media-type.ts';
import type {Backref, ProxyAnswer} from './backref.ts';
import {contentOf, type ManifestContent} from './content.ts';
import type {Expectation, ScriptedAnswer} from './scripted-upstream.ts';

export interface ListedDescriptor {
  mediaType: string;
  digest: string;
  size: number;
  artifactType?: string;
  annotations?: Record<string, string>;
}

export interface ReferrerOptions {
  artifactType?: string;
  annotations?: Record<string, string>;
}

/** An artifact that refers to a manifest, unlike any other. */
export function referrerOf(
  subject: ManifestContent,
  {artifactType = 'application/vnd.example.sbom', annotations = {}}: ReferrerOptions = {},
): ManifestContent {
  const empty = contentOf(Buffer.from('{}'));
  const body = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    artifactType,
    config: {mediaType: 'application/vnd.oci.empty.v1+json', digest: empty.digest, size: 2},
    layers: [],
    subject: {mediaType: subject.mediaType, digest: subject.digest, size: subject.bytes.length},
    annotations: {nonce: randomBytes(6).toString('hex'), ...annotations},
  };
  return {...contentOf(Buffer.from(JSON.stringify(body))), mediaType: OCI_MANIFEST};
}

/** The descriptor that a referrer's own bytes make. */
export function descriptorOf({bytes, digest, mediaType}: ManifestContent): ListedDescriptor {
  const {artifactType, annotations} = JSON.parse(bytes.toString());
  return {mediaType, digest, size: bytes.length, artifactType, annotations};
}

export const indexBytes = (manifests: readonly unknown[]): Buffer =>
  Buffer.from(JSON.stringify({schemaVersion: 2, mediaType: OCI_INDEX, manifests}));

/** A Referrers API's answer. */
export const listAnswer = (manifests: readonly unknown[]): ScriptedAnswer => ({
  headers: {'Content-Type': OCI_INDEX},
  body: indexBytes(manifests),
});

export const fallbackTagOf = ({digest}: {digest: string}): string => digest.replace(':', '-');

/** What a registry without the Referrers API is asked when a list is wanted, and answers. */
export function legacy(
  repository: string,
  subject: ManifestContent,
  entries: readonly ManifestContent[],
  tagEntries: readonly unknown[] = entries.map(descriptorOf),
): Expectation[] {
  return [
    {request: `GET /v2/${repository}/referrers/${subject.digest}`, answer: {status: 404}},
    {request: `GET /v2/${repository}/manifests/${fallbackTagOf(subject)}`, answer: listAnswer(tagEntries)},
    ...entries.map((entry) => ({
      request: `GET /v2/${repository}/manifests/${entry.digest}`,
      answer: {headers: {'Content-Type': entry.mediaType}, body: entry.bytes},
    })),
  ];
}

/** Asks for a list until it comes from the metadata: the first answer comes as soon as the list is learned. */
export async function askUntilWritten(proxy: Backref, path: string): Promise<ProxyAnswer> {
  for (;;) {
    const got = await proxy.ask(path);
    if (got.status !== 200) throw new Error(`GET ${path} answered ${got.status}: ${got.body}`);
    if (String(got.headers['cache-status']).startsWith('backref;hit')) return got;
  }
}
