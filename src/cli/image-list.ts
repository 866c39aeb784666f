import {readFile} from 'node:fs/promises';
import {isRecord} from '../oci/json.ts';
import {isPlatformName} from '../oci/platform.ts';
import type {CommandIo} from './report.ts';

/** The list is not one that is understood. */
class ImageListFault extends Error {
  override readonly name = 'ImageListFault';
}

const STDIN = '-';

/**
 * The images that a command line names, each once, in their order.
 * @param named names, or `-` for a list from stdin
 * @param file of a list; `-` is stdin
 * @returns what is wrong with the command line, as text, when the list cannot be read, nothing is named, or a platform is
 * not one
 */
export async function imagesOrFault(
  named: readonly string[],
  {file, platforms}: {file: string | undefined; platforms: readonly string[]},
  io: Pick<CommandIo, 'stdin'>,
): Promise<string[] | string> {
  const wrong = platforms.find((platform) => !isPlatformName(platform));
  if (wrong !== undefined) return `"${wrong}" is not a platform: write linux/amd64 or linux/arm/v7.`;
  try {
    return await imagesFrom(named, file, io);
  } catch (error) {
    if (error instanceof ImageListFault) return error.message;
    throw error;
  }
}

async function imagesFrom(
  named: readonly string[],
  file: string | undefined,
  io: Pick<CommandIo, 'stdin'>,
): Promise<string[]> {
  const names = named.filter((name) => name !== STDIN);
  const places = new Set([...(named.includes(STDIN) ? [STDIN] : []), ...(file === undefined ? [] : [file])]);
  for (const place of places) names.push(...imagesIn(await contentOf(place, io)));
  if (names.length === 0)
    throw new ImageListFault('no image is named: write names, or -f with a list of them');
  return [...new Set(names)];
}

async function contentOf(place: string, {stdin}: Pick<CommandIo, 'stdin'>): Promise<string> {
  if (place !== STDIN) {
    return readFile(place, 'utf8').catch((error: unknown) => {
      throw new ImageListFault(`the list cannot be read: ${error instanceof Error ? error.message : error}`);
    });
  }
  const chunks: Buffer[] = [];
  for await (const chunk of stdin ?? []) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString('utf8');
}

/**
 * The images in a list: one name a line, where `#` begins a comment; or the JSON that `kubectl get pods -o json` writes.
 * @throws ImageListFault for other JSON
 */
export function imagesIn(text: string): string[] {
  if (/^\s*[{[]/.test(text)) return imagesOfPods(text);
  return text
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .filter((line) => line !== '');
}

function imagesOfPods(text: string): string[] {
  const {items, ...pod} = objectIn(text);
  const pods = Array.isArray(items) ? items : [pod];
  if (!pods.every((each) => isRecord(each) && isRecord(each['spec']))) {
    throw new ImageListFault('the list is JSON, but not pods as "kubectl get pods -A -o json" writes them');
  }
  if (pods.length === 0)
    throw new ImageListFault('the list of pods is empty: no pod runs where kubectl looked');
  return pods.flatMap(imagesOfPod);
}

function objectIn(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (isRecord(value)) return value;
    return {items: value};
  } catch (error) {
    throw new ImageListFault(`the list is not valid JSON: ${error instanceof Error ? error.message : error}`);
  }
}

/** The containers of a pod, with the fields of its status that say what they run. */
const CONTAINERS = {
  containers: 'containerStatuses',
  initContainers: 'initContainerStatuses',
  ephemeralContainers: 'ephemeralContainerStatuses',
};

function imagesOfPod({spec, status}: Record<string, unknown>): string[] {
  return Object.entries(CONTAINERS).flatMap(([ofSpec, ofStatus]) => {
    const statuses = recordsIn(status, ofStatus);
    return recordsIn(spec, ofSpec).flatMap(({name, image}) => {
      const running = statuses.find((each) => each['name'] === name);
      const exact = running && exactImage(running['imageID']);
      return exact ?? (typeof image === 'string' && image !== '' ? image : []);
    });
  });
}

function recordsIn(value: unknown, key: string): Record<string, unknown>[] {
  const list = isRecord(value) ? value[key] : undefined;
  return Array.isArray(list) ? list.filter(isRecord) : [];
}

/** What a container runs, by digest: `docker.io/library/nginx@sha256:…`. Some runtimes write a scheme before it, or only an id. */
function exactImage(id: unknown): string | undefined {
  if (typeof id !== 'string') return undefined;
  const image = id.replace(/^[a-z-]+:\/\//, '');
  return image.includes('@') ? image : undefined;
}
