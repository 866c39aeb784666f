import {ATTACHMENTS} from './attachments/all.ts';
import {LOOKS} from './attachments/attachment.ts';
import {CASES, runCases} from './cases.ts';
import {CLIENTS} from './clients/all.ts';
import {buildImage, pushImage} from './image.ts';
import {runLooks} from './looks.ts';
import type {Contender, Part} from './part.ts';

/** An image with OCI media types and the one-component name of Docker Hub, and one with Docker's own types. */
const IMAGES = [buildImage('library/hello', '1', 'oci'), buildImage('org/app', '1', 'docker')];

/** Clients that pull, before registries of two generations. */
const pulls: Part = {
  section: 'interop',
  cases: CASES,
  upstreams: ['docker-registry', 'distribution'],
  contenders: CLIENTS.map(
    (client): Contender => ({
      name: client.name,
      tools: client.tools,
      run: (scope, {tools, url, done}) =>
        runCases(scope, {tools, client, upstream: url, images: IMAGES, done}),
    }),
  ),
  async fill(url) {
    for (const image of IMAGES) await pushImage(url, image);
  },
};

/** Tools that attach and look, before a registry without the Referrers API and one with it. */
const referrers: Part = {
  section: 'interop-referrers',
  cases: LOOKS,
  upstreams: ['docker-registry', 'olareg'],
  contenders: ATTACHMENTS.map(
    (attachment): Contender => ({
      name: attachment.name,
      // crane pulls the images, whatever else is used.
      tools: [...attachment.tools, 'crane'],
      run: (scope, before) => runLooks(scope, attachment, before),
    }),
  ),
  async fill() {
    // Each has an image of its own, so that none finds what another attached.
  },
};

const PARTS: readonly Part[] = [pulls, referrers];

/** The parts with the contenders whose name contains `text` alone. @throws Error when there are none */
export function matching(text: string): Part[] {
  const wanted = text.toLowerCase();
  const parts = PARTS.map((part) => ({
    ...part,
    contenders: part.contenders.filter(({name}) => name.toLowerCase().includes(wanted)),
  }));
  const chosen = parts.filter(({contenders}) => contenders.length > 0);
  if (chosen.length > 0) return chosen;
  const names = PARTS.flatMap(({contenders}) => contenders.map(({name}) => name));
  throw new Error(`nothing is called "${text}"; there are: ${names.join('; ')}`);
}
