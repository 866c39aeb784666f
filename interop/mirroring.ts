import type {Scope} from '../rig/scope.ts';
import {REGISTRY, type Site, startSite} from './logins/site.ts';
import {CHALLENGES, createChallengingMirror} from './mirrors/challenging-mirror.ts';
import type {LoginOf, MirrorClient} from './mirrors/mirror-client.ts';
import type {Before} from './part.ts';
import {messageOf} from './report.ts';
import {USER} from './user.ts';

/** The names of docker.io in the default configuration. regctl asks a mirror for the last one. */
const HUB = ['docker.io', 'index.docker.io', 'registry-1.docker.io'] as const;

/** In the order of running and showing. */
export const MIRROR_CASES = [
  'its login of docker.io',
  'its login of the mirror',
  "pull from backref with the mirror's login",
] as const;

/**
 * Finds out which credentials a client sends to a mirror that asks for a login, and whether it can pull through a backref
 * that lets nobody in without one.
 */
export async function runMirrors(parent: Scope, client: MirrorClient, {tools, done}: Before): Promise<void> {
  const scope = await parent.child();
  try {
    const site = await startSite(scope, tools, HUB);
    const pull = async (own: Scope, of: LoginOf): Promise<string | undefined> => {
      const login = {of, user: USER.name, secret: USER.password};
      const {ca} = site.certificates;
      const place = {scope: await own.child(), tools, mirror: REGISTRY, proxy: site.proxy, ca, login};
      return client.pull(place).then(() => undefined, messageOf);
    };
    const trials: Record<(typeof MIRROR_CASES)[number], (own: Scope) => Promise<string>> = {
      'its login of docker.io': (own) => challenged({own, site, client, of: 'docker.io', pull}),
      'its login of the mirror': (own) => challenged({own, site, client, of: 'the mirror', pull}),
      "pull from backref with the mirror's login": async (own) => {
        site.leadToServer();
        await site.audited();
        const can = client.sends['the mirror'] !== undefined;
        const message = await pull(own, 'the mirror');
        if (can && message !== undefined) throw new Error(message);
        await expectServed(site, can);
        return can ? '✓' : 'refused';
      },
    };
    for (const name of MIRROR_CASES) {
      const began = Date.now();
      const own = await scope.child();
      const tried = await trials[name](own).then(
        (note) => ({fault: undefined, note}),
        (error: unknown) => ({fault: messageOf(error)}),
      );
      await own.end();
      done({case: name, ...tried, ms: Date.now() - began, asked: 0});
    }
  } finally {
    await scope.end();
  }
}

interface Challenged {
  own: Scope;
  site: Site;
  client: MirrorClient;
  of: LoginOf;
  pull(own: Scope, of: LoginOf): Promise<string | undefined>;
}

/** Whether a mirror is sent a login, whichever way it asks. @throws Error when the client does not do what it says */
async function challenged({own, site, client: {sends}, of, pull}: Challenged): Promise<string> {
  for (const challenge of CHALLENGES) {
    const mirror = await createChallengingMirror(own, {
      name: REGISTRY,
      certificates: site.certificates,
      challenge,
    });
    site.leadTo(mirror.port);
    if ((await pull(own, of)) === undefined)
      throw new Error('it was pulled, though the mirror lets nobody in');
    if (mirror.requests() === 0) throw new Error('the mirror was not asked');
    const isSent = mirror.users().has(USER.name);
    if (isSent !== (sends[of] !== undefined))
      throw new Error(
        `the login of ${of} was ${isSent ? '' : 'not '}sent to a mirror that asks for ${challenge}`,
      );
  }
  return sends[of] ?? 'not sent';
}

/** @throws Error when the server let somebody else in, or nobody although it should have */
async function expectServed(site: Site, can: boolean): Promise<void> {
  const requests = (await site.audited()).filter(({path}) => path.startsWith('/v2/'));
  const served = requests.filter(({status}) => status < 400);
  const other = served.find(({caller}) => caller !== `user:${USER.name}`);
  if (other) throw new Error(`the server let ${other.caller} in: ${other.method} ${other.path}`);
  if (requests.length === 0) throw new Error('the server was not asked');
  if (served.length > 0 !== can)
    throw new Error(`the server answered ${served.length} requests with content`);
}
