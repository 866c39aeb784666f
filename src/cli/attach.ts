import {basename} from 'node:path';
import {manifestOfLayers} from '../artifact/artifact.ts';
import {attach as attachArtifact} from '../artifacts.ts';
import type {Descriptor} from '../oci/descriptor.ts';
import {parseArtifactReference} from './artifact-reference.ts';
import {fileBlob} from './file-blob.ts';
import {explain, registryAccess} from './registry-access.ts';

export interface AttachFlags {
  artifactType: string;
  mediaType: string;
  /** `key=value`, each. */
  annotation: readonly string[];
  plainHttp?: boolean;
}

const MISUSED = 2;
const CREATED = 'org.opencontainers.image.created';
const TITLE = 'org.opencontainers.image.title';

/** @returns the annotations, or what is wrong with one. */
function readAnnotations(texts: readonly string[]): Record<string, string> | string {
  const wrong = texts.find((text) => text.indexOf('=') < 1);
  if (wrong !== undefined) return `--annotation "${wrong}" is not of the form key=value.`;
  return Object.fromEntries(
    texts.map((text) => [text.slice(0, text.indexOf('=')), text.slice(text.indexOf('=') + 1)]),
  );
}

/**
 * `backref attach`: attaches files to a manifest, each as a layer, and prints the digest of the new manifest.
 * @returns the exit code: 0 when they are attached and can be found, 1 when not, 2 when the command is misused.
 */
export async function attach(text: string, files: readonly string[], flags: AttachFlags): Promise<number> {
  const reference = parseArtifactReference(text);
  const annotations = readAnnotations(flags.annotation);
  if (typeof reference === 'string') return misused(reference);
  if (typeof annotations === 'string') return misused(annotations);
  if (flags.artifactType === '') return misused('--artifact-type must not be empty.');
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
    const options = {...(await registryAccess(flags, process.env)), blobs};
    const digest = await attachArtifact(reference.target, reference.reference, artifact, options);
    process.stdout.write(`${digest}\n`);
    return 0;
  } catch (error) {
    process.stderr.write(`${explain(error, process.env)}\n`);
    return 1;
  }
}

function misused(problem: string): number {
  process.stderr.write(`${problem}\n`);
  return MISUSED;
}
