import {mkdir, readFile, rm, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import type {Scope} from '../rig/scope.ts';
import {findTools, type Toolbox} from '../rig/tools.ts';
import type {Artifact} from './catalog.ts';
import {contentsOf} from './model.ts';

export const CLIENT_TOOLS = ['crane', 'oras', 'skopeo'] as const;
export type ClientTool = (typeof CLIENT_TOOLS)[number];

/** What came of a client's work. */
export interface ClientResult {
  /** What it printed when it failed; undefined when it succeeded. */
  failure: string | undefined;
  /** Digests whose bytes are not right although it succeeded. */
  wrong: string[];
}

/** Real clients. */
export interface Clients {
  readonly available: readonly ClientTool[];
  /** The reason for each missing tool. */
  readonly lacking: readonly string[];
  /** Copies an image, all platforms, into a folder, and compares every byte. @param reference as clients name it, with a tag */
  pull(tool: ClientTool, reference: string, image: Artifact): Promise<ClientResult>;
  /** Pushes an image of one manifest. */
  push(tool: ClientTool, reference: string, image: Artifact): Promise<ClientResult>;
}

/** Their own retries may wait for seconds. */
const TIMEOUT_MS = 60_000;

/** Finds the tools, and installs missing ones. */
export async function findClients(scope: Scope, say: (line: string) => void): Promise<Clients> {
  const tools = await findTools(scope, CLIENT_TOOLS, say);
  const available = CLIENT_TOOLS.filter((tool) => !tools.missing.has(tool));
  const lacking = [...tools.missing].map(([tool, reason]) => `${tool}: ${reason}`);
  let copies = 0;
  const inFolder = async (work: (folder: string) => Promise<ClientResult>) => {
    const folder = join(scope.folder, `copy-${copies++}`);
    try {
      return await work(folder);
    } finally {
      await rm(folder, {recursive: true, force: true});
    }
  };
  const run = (tool: ClientTool, args: string[]) => runTool(scope, tools, tool, args);
  return {
    available,
    lacking,
    pull: (tool, reference, image) =>
      inFolder(async (folder) => {
        const failure = await run(tool, PULL[tool](reference, folder));
        return {failure, wrong: failure === undefined ? await wrongIn(folder, image) : []};
      }),
    push: (tool, reference, image) =>
      inFolder(async (folder) => {
        await writeLayout(folder, image);
        return {failure: await run(tool, PUSH[tool](reference, folder)), wrong: []};
      }),
  };
}

type Arguments = (reference: string, folder: string) => string[];
const SKOPEO = ['--insecure-policy', 'copy', '--all', '--preserve-digests'];

const PULL: Record<ClientTool, Arguments> = {
  crane: (reference, folder) => ['pull', '--insecure', '--format', 'oci', reference, folder],
  oras: (reference, folder) => [
    ...['copy', '--no-tty', '--from-plain-http', reference],
    ...['--to-oci-layout', `${folder}:copied`],
  ],
  skopeo: (reference, folder) => [
    ...[...SKOPEO, '--src-tls-verify=false'],
    ...[`docker://${reference}`, `oci:${folder}:copied`],
  ],
};

const PUSH: Record<ClientTool, Arguments> = {
  crane: (reference, folder) => ['push', '--insecure', folder, reference],
  oras: (reference, folder) => [
    ...['copy', '--no-tty', '--from-oci-layout', `${folder}:pushed`],
    ...['--to-plain-http', reference],
  ],
  skopeo: (reference, folder) => [
    ...[...SKOPEO, '--dest-tls-verify=false'],
    ...[`oci:${folder}:pushed`, `docker://${reference}`],
  ],
};

async function runTool(
  scope: Scope,
  tools: Toolbox,
  tool: ClientTool,
  args: string[],
): Promise<string | undefined> {
  try {
    await scope.run(tools.path(tool), args, {timeout: TIMEOUT_MS});
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

const blobPath = (folder: string, digest: string): string => join(folder, 'blobs', ...digest.split(':'));

async function wrongIn(folder: string, image: Artifact): Promise<string[]> {
  const wrong: string[] = [];
  for (const {digest, bytes} of contentsOf(image)) {
    const copied = await readFile(blobPath(folder, digest)).catch(() => undefined);
    if (!copied?.equals(bytes)) wrong.push(digest);
  }
  return wrong;
}

/** Writes an OCI image layout with one image. */
async function writeLayout(folder: string, image: Artifact): Promise<void> {
  await mkdir(join(folder, 'blobs/sha256'), {recursive: true});
  for (const {digest, bytes} of contentsOf(image)) await writeFile(blobPath(folder, digest), bytes);
  const {mediaType, digest, bytes} = image.manifest;
  const annotations = {'org.opencontainers.image.ref.name': 'pushed'};
  const manifests = [{mediaType, digest, size: bytes.length, annotations}];
  await writeFile(join(folder, 'oci-layout'), JSON.stringify({imageLayoutVersion: '1.0.0'}));
  await writeFile(join(folder, 'index.json'), JSON.stringify({schemaVersion: 2, manifests}));
}
