import {join} from 'node:path';
import type {Image} from '../../rig/image.ts';
import {type Client, cleanEnvironment, expectAll, type Pull} from './client.ts';
import {everyDigest, hashFiles} from './copied-files.ts';
import {mirrorDockerIo} from './registries-conf.ts';

// skopeo's `dir:` keeps Docker's media types; an OCI layout would convert them.
const SKOPEO = ['--insecure-policy', 'copy', '--all', '--preserve-digests'];

const skopeoMirrored: Client = {
  name: 'skopeo, docker.io mirrored',
  tools: ['skopeo'],
  async pull(pull) {
    await mirrorDockerIo(pull.scope, pull.host);
    await copyEach(pull, 'skopeo', (image, folder) => [
      ...SKOPEO,
      `docker://docker.io/${image.repository}:${image.tag}`,
      `dir:${folder}`,
    ]);
  },
};

export const skopeo: Client = {
  name: 'skopeo, plain name',
  tools: ['skopeo'],
  pull: (pull) =>
    copyEach(pull, 'skopeo', (image, folder) => [
      ...SKOPEO,
      '--src-tls-verify=false',
      `docker://${named(pull, image)}`,
      `dir:${folder}`,
    ]),
};

export const crane: Client = {
  name: 'crane',
  tools: ['crane'],
  pull: (pull) =>
    copyEach(pull, 'crane', (image, folder) => [
      ...['pull', '--insecure', '--format', 'oci'],
      named(pull, image),
      folder,
    ]),
};

const oras: Client = {
  name: 'oras',
  tools: ['oras'],
  pull: (pull) =>
    copyEach(pull, 'oras', (image, folder) => [
      ...['copy', '--no-tty', '--from-plain-http'],
      named(pull, image),
      '--to-oci-layout',
      `${folder}:${image.tag}`,
    ]),
};

const regctl: Client = {
  name: 'regctl',
  tools: ['regctl'],
  pull: (pull) =>
    copyEach(pull, 'regctl', (image, folder) => [
      ...['image', 'copy', '--host', `reg=${pull.host},tls=disabled`],
      named(pull, image),
      `ocidir://${folder}:${image.tag}`,
    ]),
};

/** The clients that copy a whole image, all platforms, into a folder, where each byte can be hashed. */
export const copiers: readonly Client[] = [skopeoMirrored, skopeo, crane, oras, regctl];

const named = ({host}: Pull, {repository, tag}: Image): string => `${host}/${repository}:${tag}`;

async function copyEach(
  {scope, tools, images}: Pull,
  tool: 'skopeo' | 'crane' | 'oras' | 'regctl',
  copy: (image: Image, folder: string) => string[],
): Promise<void> {
  for (const [number, image] of images.entries()) {
    const folder = join(scope.folder, `copy-${number}`);
    await scope.run(tools.path(tool), copy(image, folder), {env: cleanEnvironment(scope)});
    expectAll('the copied files', everyDigest(image), await hashFiles(folder));
  }
}
