import {createReadStream} from 'node:fs';
import {stat} from 'node:fs/promises';
import {basename} from 'node:path';
import {manifestOfLayers} from '../artifact/artifact.ts';
import {ArtifactError} from '../artifact/target.ts';
import {attach as attachArtifact} from '../library.ts';
import type {BlobSource} from '../oci/blob.ts';
import type {Descriptor} from '../oci/descriptor.ts';
import {createDigester} from '../oci/digest.ts';
import {explain, parseArtifactReference, registryAccess} from './artifact-reference.ts';
import {humanSize} from './draw-tree.ts';
import {type CommandIo, createJsonReport, createTextReport, misused} from './report.ts';

export interface AttachFlags {
  artifactType: string;
  mediaType: string;
  /** Each is `key=value`. */
  annotation: readonly string[];
  plainHttp?: boolean;
  json?: boolean;
}

const CREATED = 'org.opencontainers.image.created';
const TITLE = 'org.opencontainers.image.title';

/** @returns the annotations, or what is wrong with one of them. */
function parseAnnotations(texts: readonly string[]): Record<string, string> | string {
  const wrong = texts.find((text) => text.indexOf('=') < 1);
  if (wrong !== undefined) return `--annotation "${wrong}" is not of the form key=value.`;
  return Object.fromEntries(
    texts.map((text) => [text.slice(0, text.indexOf('=')), text.slice(text.indexOf('=') + 1)]),
  );
}

/** A file as a blob; it is read once for its digest and again when it is sent. @throws ArtifactError */
async function fileBlob(path: string): Promise<BlobSource> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    throw new ArtifactError(`The file ${path} cannot be read (${error.code}).`);
  });
  if (!found.isFile()) throw new ArtifactError(`${path} is not a file: name files to attach.`);
  const open = () => createReadStream(path);
  const digester = createDigester('sha256');
  let size = 0;
  for await (const chunk of open()) {
    digester.update(chunk);
    size += chunk.length;
  }
  return {digest: digester.digest(), size, open};
}

interface SentBytes {
  /** Bytes. */
  sent: number;
  total: number;
}

const wording = {
  progress: ({sent, total}: SentBytes): [number, string] => [
    total === 0 ? 1 : Math.min(1, sent / total),
    `${humanSize(sent)} of ${humanSize(total)} sent`,
  ],
  result: ({digest}: {digest: string}): string => digest,
};

/** The same blobs, which report each percent that is read of them: they are sent as they are read. */
function withProgress(blobs: readonly BlobSource[], report: (state: SentBytes) => void): BlobSource[] {
  const total = blobs.reduce((sum, {size}) => sum + size, 0);
  let sent = 0;
  let shown = 0;
  async function* counted(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of bytes) {
      yield chunk;
      sent += chunk.length;
      const percent = Math.floor((100 * sent) / total);
      if (percent > shown) report({sent, total});
      shown = percent;
    }
  }
  return blobs.map((blob) => ({...blob, open: () => counted(blob.open())}));
}

/**
 * `backref attach`: attaches files to a manifest, each as a layer, and prints the digest of the new manifest. On a
 * terminal it shows how much is sent; with `--json` each step is a line of JSON.
 * @returns the exit code: 0 when they are attached and can be listed, 1 when not, 2 for wrong arguments.
 */
export async function attach(
  text: string,
  files: readonly string[],
  flags: AttachFlags,
  io: CommandIo,
): Promise<number> {
  const reference = parseArtifactReference(text);
  const annotations = parseAnnotations(flags.annotation);
  if (typeof reference === 'string') return misused(reference, flags, io);
  if (typeof annotations === 'string') return misused(annotations, flags, io);
  if (flags.artifactType === '') return misused('--artifact-type must not be empty.', flags, io);
  const report = flags.json
    ? createJsonReport<SentBytes, {digest: string}>(io)
    : createTextReport<SentBytes, {digest: string}>(wording, io);
  try {
    const blobs = await Array.fromAsync(files, fileBlob);
    const layers = blobs.map(
      ({digest, size}, index): Descriptor => ({
        mediaType: flags.mediaType,
        digest,
        size,
        annotations: {[TITLE]: basename(files[index] ?? '')},
      }),
    );
    const created = {[CREATED]: new Date().toISOString(), ...annotations};
    const artifact = manifestOfLayers(layers, flags.artifactType, created);
    const shows = flags.json || io.stderr.isTTY;
    const options = {
      ...(await registryAccess(reference.target, flags, io.env)),
      blobs: shows ? withProgress(blobs, report.progress) : blobs,
    };
    report.result({digest: await attachArtifact(reference.target, reference.reference, artifact, options)});
    return 0;
  } catch (error) {
    report.error(new Error(explain(error, io.env), {cause: error}));
    return 1;
  }
}
