import {buildImage, pushImage} from '../rig/image.ts';
import {ATTACHMENTS} from './attachments/all.ts';
import {LOOKS} from './attachments/attachment.ts';
import {CASES, runCases} from './cases.ts';
import {CLIENTS} from './clients/all.ts';
import {LOGIN_CASES, PASSTHROUGH_CASES, runLogins, runPassthrough} from './logging-in.ts';
import {LOGIN_CLIENTS} from './logins/all.ts';
import {runLooks} from './looks.ts';
import {MIRROR_CASES, runMirrors} from './mirroring.ts';
import {MIRROR_CLIENTS} from './mirrors/clients.ts';
import {type Contender, firstUpstream, type Part} from './part.ts';
import {PROXIES, PROXY_CASES} from './proxies.ts';
import {PUSHES} from './pushes/all.ts';
import {PLACES, THROUGH_TO_TAGS} from './pushes/places.ts';
import {OURS} from './pushes/push.ts';
import {runPushes} from './pushing.ts';
import {ATTACHES, runRace} from './race.ts';

/** An image with OCI media types and the one-component name of Docker Hub, and one with Docker's own types. */
const IMAGES = [buildImage('library/hello', '1', 'oci'), buildImage('org/app', '1', 'docker')];

/** Clients that pull, with registries of two generations. */
const pulls: Part = {
  section: 'interop',
  cases: CASES,
  before: [['docker-registry'], ['distribution']],
  contenders: CLIENTS.map(
    (client): Contender => ({
      name: client.name,
      tools: client.tools,
      run: (scope, before) => {
        const {tools, done} = before;
        const {url: upstream} = firstUpstream(before);
        return runCases(scope, {tools, client, upstream, images: IMAGES, done});
      },
    }),
  ),
  async fill(url) {
    for (const image of IMAGES) await pushImage(url, image);
  },
};

/** Tools that attach and look, with a registry without the Referrers API and one with it. */
const referrers: Part = {
  section: 'interop-referrers',
  cases: LOOKS,
  before: [['docker-registry'], ['olareg']],
  contenders: ATTACHMENTS.map(
    (attachment): Contender => ({
      name: attachment.name,
      // crane pulls the images in any case.
      tools: [...attachment.tools, 'crane'],
      run: (scope, before) => runLooks(scope, attachment, before),
    }),
  ),
  async fill() {
    // Each has its own image, so that none finds what another attached.
  },
};

/** Tools that push and attach through backref, in all modes. */
const pushes: Part = {
  section: 'interop-pushes',
  cases: PLACES.map(({name}) => name),
  before: [['docker-registry', 'olareg']],
  contenders: [
    ...PUSHES.map(
      (push): Contender => ({
        name: push.name,
        tools: push.tools,
        run: (scope, before) => runPushes(scope, push, before),
      }),
    ),
    {
      name: `oras, ${ATTACHES} attached beside ${ATTACHES} written directly`,
      tools: ['oras'],
      run: (scope, before) => runRace(scope, THROUGH_TO_TAGS, before),
    },
  ],
  fill: (url) => pushImage(url, OURS),
};

/** The reverse proxies of `deploy/`. A hosted registry is behind them. */
const proxies: Part = {
  section: 'interop-proxies',
  cases: PROXY_CASES,
  before: [[]],
  contenders: PROXIES,
  async fill() {},
};

/** Clients that log in, on a hosted registry with TLS of a private authority. */
const logins: Part = {
  section: 'interop-logins',
  cases: LOGIN_CASES,
  before: [[]],
  contenders: LOGIN_CLIENTS.map(
    (client): Contender => ({
      name: client.name,
      tools: [...client.tools, 'openssl'],
      run: (scope, before) => runLogins(scope, client, before),
    }),
  ),
  async fill() {},
};

/** The same clients, whose logins are passed on to a registry that has users. */
const passthrough: Part = {
  ...logins,
  section: 'interop-passthrough',
  cases: PASSTHROUGH_CASES,
  contenders: LOGIN_CLIENTS.map(
    (client): Contender => ({
      name: client.name,
      tools: [...client.tools, 'openssl', 'docker-registry'],
      run: (scope, before) => runPassthrough(scope, client, before),
    }),
  ),
};

/** Clients with a mirror of docker.io that asks for a login. */
const mirrors: Part = {
  section: 'interop-mirrors',
  cases: MIRROR_CASES,
  before: [[]],
  contenders: MIRROR_CLIENTS.map(
    (client): Contender => ({
      name: client.name,
      tools: [...client.tools, 'openssl'],
      run: (scope, before) => runMirrors(scope, client, before),
    }),
  ),
  async fill() {},
};

const PARTS: readonly Part[] = [pulls, referrers, pushes, proxies, logins, passthrough, mirrors];

/** The parts, with only the contenders whose name contains `text`. @throws Error when there are none */
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
