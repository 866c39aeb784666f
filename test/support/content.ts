import {createHash, randomBytes} from 'node:crypto';
import type {ExecutionContext} from 'ava';
import {type Algorithm, type Digest, digestOf} from '../../src/oci/digest.ts';
import {OCI_INDEX, OCI_MANIFEST} from '../../src/oci/media-type.ts';
import type {ScriptedAnswer} from './scripted-upstream.ts';

export interface Content {
  bytes: Buffer;
  digest: Digest;
}

export const contentOf = (bytes: Buffer, algorithm: Algorithm = 'sha256'): Content => ({
  bytes,
  digest: digestOf(bytes, algorithm),
});

/** Fails unless both are the same bytes. AVA's `deepEqual` takes half a second for a MiB. */
export function sameBytes(t: ExecutionContext, actual: Uint8Array | undefined, expected: Uint8Array): void {
  t.true(
    actual && Buffer.compare(actual, expected) === 0,
    `${actual?.length} bytes, not the ${expected.length} that were expected`,
  );
}

/** A blob of random bytes. */
export const randomBlob = (size: number, algorithm: Algorithm = 'sha256'): Content =>
  contentOf(randomBytes(size), algorithm);

export interface ManifestContent extends Content {
  mediaType: string;
}

/** An image manifest that nothing else equals, with these blobs as its layers. */
export function imageManifest(
  layers: readonly Content[] = [],
  algorithm: Algorithm = 'sha256',
): ManifestContent {
  const config = contentOf(Buffer.from('{}'));
  const body = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: descriptor(config, 'application/vnd.oci.image.config.v1+json'),
    layers: layers.map((layer) => descriptor(layer, 'application/vnd.oci.image.layer.v1.tar+gzip')),
    annotations: {nonce: randomBytes(8).toString('hex')},
  };
  return {...contentOf(Buffer.from(JSON.stringify(body, null, 2)), algorithm), mediaType: OCI_MANIFEST};
}

/** An index over these manifests. */
export function indexOf(manifests: readonly ManifestContent[]): ManifestContent {
  const body = {
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    manifests: manifests.map((manifest) => descriptor(manifest, manifest.mediaType)),
  };
  return {...contentOf(Buffer.from(JSON.stringify(body))), mediaType: OCI_INDEX};
}

/** A manifest that nothing else equals and that refers to nothing: whole as it is. */
export function plainManifest(algorithm: Algorithm = 'sha256'): ManifestContent {
  const nonce = randomBytes(8).toString('hex');
  const body = {schemaVersion: 2, mediaType: OCI_INDEX, manifests: [], annotations: {nonce}};
  return {...contentOf(Buffer.from(JSON.stringify(body, null, 2)), algorithm), mediaType: OCI_INDEX};
}

const descriptor = ({digest, bytes}: Content, mediaType: string) => ({mediaType, digest, size: bytes.length});

/** An artifact that refers to a manifest, such as a signature. Its configuration is the empty one, `{}`. */
export function attachmentTo(
  {mediaType, digest, bytes}: ManifestContent,
  annotations?: object,
): ManifestContent {
  const config = contentOf(Buffer.from('{}'));
  const body = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    artifactType: 'application/x',
    config: descriptor(config, 'application/vnd.oci.empty.v1+json'),
    layers: [],
    subject: {mediaType, digest, size: bytes.length},
    annotations,
  };
  return {...contentOf(Buffer.from(JSON.stringify(body))), mediaType: OCI_MANIFEST};
}

/** A registry's answer with a manifest, for GET and HEAD. */
export const manifestAnswer = ({bytes, digest, mediaType}: ManifestContent): ScriptedAnswer => ({
  headers: {
    'Content-Type': mediaType,
    'Docker-Content-Digest': digest,
    'Content-Length': String(bytes.length),
  },
  body: bytes,
});

export const headAnswer = ({bytes, digest, mediaType}: ManifestContent): ScriptedAnswer => ({
  headers: {
    'Content-Type': mediaType,
    'Docker-Content-Digest': digest,
    'Content-Length': String(bytes.length),
  },
  body: [],
});

export const blobAnswer = ({bytes}: Content): ScriptedAnswer => ({
  headers: {'Content-Type': 'application/octet-stream'},
  body: bytes,
});

export const sha256 = (bytes: Uint8Array): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
