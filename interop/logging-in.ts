import type {Scope} from '../rig/scope.ts';
import type {Passed} from './logins/expiry.ts';
import type {Credential, LoginClient, LoginSession} from './logins/login-client.ts';
import {OWN, PRIVATE, REGISTRY, type Site, startPassthrough, startSite} from './logins/site.ts';
import type {Before} from './part.ts';
import {messageOf} from './report.ts';
import {slug} from './slug.ts';
import {USER} from './user.ts';

/** In the order of running and showing. */
export const LOGIN_CASES = [
  'correct login',
  'no login',
  'wrong password',
  'authority not trusted',
  'expires during a pull',
  'expires during a push',
  'expired access token',
  'expired robot',
  'expired refresh token',
] as const;
type LoginCase = (typeof LOGIN_CASES)[number];

const LOGIN: Credential = {kind: 'password', user: USER.name, secret: USER.password};
const WRONG: Credential = {kind: 'password', user: USER.name, secret: 'wrong'};

/** What clients print when the registry wants to know who they are. */
const REFUSED =
  /\b401\b|unauthori[sz]ed|authentication required|authorization failed|invalid username\/password/i;
const NOT_TRUSTED = /certificate signed by unknown authority/;

/** Those that concern logins at a registry behind backref. */
const UPSTREAM_CASES = ['correct login', 'no login', 'wrong password'] as const;
const CHALLENGES = ['Bearer', 'Basic'] as const;
const titleOf = (name: LoginCase, challenge: string): string => `${name}, ${challenge}`;
export const PASSTHROUGH_CASES = CHALLENGES.flatMap((challenge) =>
  UPSTREAM_CASES.map((name) => titleOf(name, challenge)),
);

/** Logs in with one client in every way, on a server of its own whose clock can be set. */
export async function runLogins(parent: Scope, client: LoginClient, before: Before): Promise<void> {
  const start = (scope: Scope) => startSite(scope, before.tools);
  const caller = `user:${USER.name}`;
  await runOn(parent, client, before, {
    start,
    caller,
    refreshes: true,
    cases: LOGIN_CASES,
    title: (name) => name,
  });
}

/** Logs in with one client through backref, at registries that ask for a login in different ways. */
export async function runPassthrough(parent: Scope, client: LoginClient, before: Before): Promise<void> {
  for (const challenge of CHALLENGES) {
    const start = (scope: Scope) => startPassthrough(scope, before.tools, challenge);
    const title = (name: LoginCase) => titleOf(name, challenge);
    await runOn(parent, client, before, {
      start,
      caller: 'anonymous',
      refreshes: false,
      cases: UPSTREAM_CASES,
      title,
    });
  }
}

/** A server on which clients log in, and the cases to try on it. */
interface Ground {
  start(scope: Scope): Promise<Site>;
  /** Whom its audit log names for the user. */
  caller: string;
  /** Whether it issues refresh tokens. */
  refreshes: boolean;
  cases: readonly LoginCase[];
  title(name: LoginCase): string;
}

async function runOn(
  parent: Scope,
  client: LoginClient,
  {tools, done}: Before,
  {start, caller, refreshes, cases, title}: Ground,
): Promise<void> {
  const scope = await parent.child();
  try {
    const site = await start(scope);
    for (const name of cases) {
      const began = Date.now();
      const own = await scope.child();
      const open = (trusting = true) =>
        client.open({
          scope: own,
          tools,
          host: REGISTRY,
          proxy: site.proxy,
          ca: trusting ? site.certificates.ca : undefined,
          image: PRIVATE,
          own: OWN,
          refreshes,
          empty: `private/${slug(name)}`,
        });
      await site.audited();
      const tried = await TRIALS[name]({scope: own, site, caller, client, open}).then(
        (note) => ({fault: undefined, ...(note ? {note} : {})}),
        (error: unknown) => ({fault: messageOf(error)}),
      );
      site.leadToServer();
      await own.end();
      done({case: title(name), ...tried, ms: Date.now() - began, asked: 0});
    }
  } finally {
    await scope.end();
  }
}

interface Trial {
  scope: Scope;
  site: Site;
  /** Whom the audit log of the server names for the user. */
  caller: string;
  client: LoginClient;
  /** Begins a session, which trusts the registry's authority if it should. */
  open(trusting?: boolean): Promise<LoginSession>;
}

/** What each case does. @returns what the table says instead of a tick @throws Error */
const TRIALS: Record<LoginCase, (trial: Trial) => Promise<string | undefined>> = {
  async 'correct login'({site, caller, open}) {
    const session = await open();
    await session.login(LOGIN);
    await work(session);
    await expectCaller(site, caller);
  },
  async 'no login'({site, open}) {
    const session = await open();
    await session.login({kind: 'none'});
    await expectRefused(site, session);
  },
  async 'wrong password'({site, client, open}) {
    const session = await open();
    const message = await failure(session.login(WRONG));
    if (client.checksLogin) expectMessage('the login', message, REFUSED);
    else if (message !== undefined) throw new Error(`the login failed: ${message}`);
    await expectRefused(site, session);
    return client.checksLogin ? undefined : 'refused when it is used';
  },
  async 'authority not trusted'({site, client, open}) {
    const session = await open(false);
    const message = await failure(session.login(LOGIN));
    if (client.checksLogin) expectMessage('the login', message, NOT_TRUSTED);
    for (const each of ['push', 'pull'] as const)
      expectMessage(`the ${each}`, await failure(session[each]()), NOT_TRUSTED);
    const [request] = await site.audited();
    if (request) throw new Error(`${request.method} ${request.path} reached the server`);
  },
  async 'expires during a pull'(trial) {
    const {session, expiry} = await expiring(trial);
    // What cosign and notation verify.
    await session.push();
    expiry.expireAfter(isPulled);
    const {stumbles} = trial.client;
    if (stumbles) expectMessage('the pull', await failure(session.pull()), stumbles);
    await session.pull();
    expectRenewed(expiry.passed());
    return stumbles && 'fails; the next pull works';
  },
  async 'expires during a push'(trial) {
    const {session, expiry} = await expiring(trial);
    expiry.expireAfter(isUploaded);
    await session.push();
    expectRenewed(expiry.passed());
  },
  'expired access token': (trial) =>
    expires(trial, {
      kind: 'access token',
      get: ({site}) => site.accessToken([PRIVATE.repository, `private/${slug('expired access token')}`]),
      expire: ({site}) => site.expireAccessTokens(),
    }),
  'expired robot': (trial) =>
    expires(trial, {
      kind: 'password',
      get: ({site}) => site.createRobot(),
      expire: ({site}) => site.expireRobots(),
    }),
  'expired refresh token': (trial) =>
    expires(trial, {
      kind: 'refresh token',
      get: ({site}) => site.refreshToken(),
      expire: ({site}) => site.expireRefreshTokens(),
    }),
};

async function work(session: LoginSession): Promise<void> {
  await session.push();
  await session.pull();
}

interface Expiring {
  kind: 'password' | 'access token' | 'refresh token';
  get(trial: Trial): Promise<string>;
  expire(trial: Trial): Promise<void>;
}

/** Works with a credential, and is refused with the same one when it has expired. */
async function expires(trial: Trial, {kind, get, expire}: Expiring): Promise<string | undefined> {
  const {site, caller, client, open} = trial;
  const reason = client.cannot?.[kind];
  if (reason !== undefined) return `–: ${reason}`;
  const session = await open();
  const secret = await get(trial);
  await session.login(kind === 'password' ? {kind, user: 'ci', secret} : {kind, secret});
  await work(session);
  await expectCaller(site, kind === 'password' ? /^robot:/ : caller);
  await expire(trial);
  await expectRefused(site, session);
}

/** A session that has logged in, behind a proxy that can let its token expire. */
async function expiring({scope, site, client, open}: Trial) {
  const expiry = await site.leadToExpiry(scope, client.renewsEarlyMs ?? 0);
  const session = await open();
  await session.login(LOGIN);
  return {session, expiry};
}

const isPulled = ({method, path, scheme, status}: Passed): boolean =>
  scheme === 'Bearer' && method === 'GET' && status === 200 && path.includes('/manifests/');

const isUploaded = ({method, path, scheme, status}: Passed): boolean =>
  scheme === 'Bearer' && method === 'PUT' && status === 201 && path.includes('/blobs/');

/** Another token was got for the expired one. @throws Error */
function expectRenewed(passed: readonly Passed[] | undefined): void {
  if (!passed) throw new Error('nothing came after which the token was to expire');
  const renewed = passed.some(({path, status}) => path === '/token' && status === 200);
  if (!renewed) throw new Error('no other token was asked for');
}

/** @throws Error when pushing or pulling works, when it fails without naming the reason, or when the server let it in. */
async function expectRefused(site: Site, session: LoginSession): Promise<void> {
  await site.audited();
  for (const each of ['push', 'pull'] as const) {
    expectMessage(`the ${each}`, await failure(session[each]()), REFUSED);
    const requests = await site.audited();
    const passed = requests.find(({path, status}) => path.startsWith('/v2/') && status < 400);
    if (passed) throw new Error(`${passed.method} ${passed.path} was answered ${passed.status}`);
    if (!requests.some(({status}) => status === 401)) throw new Error('the server did not answer 401');
  }
}

/** Content was pushed and pulled, always by this caller. @throws Error */
async function expectCaller(site: Site, caller: string | RegExp): Promise<void> {
  const served = (await site.audited()).filter(({path, status}) => path.startsWith('/v2/') && status < 400);
  const other = served.find((each) =>
    typeof caller === 'string' ? each.caller !== caller : !caller.test(each.caller),
  );
  if (other)
    throw new Error(`the server takes ${other.caller} for the one who sent ${other.method} ${other.path}`);
  const has = (method: string) =>
    served.some((each) => each.method === method && each.path.includes('/manifests/'));
  if (!has('PUT') || !has('GET')) throw new Error('the server did not see a push and a pull');
}

/** The message of what should fail; undefined when it works. */
const failure = (tried: Promise<void>): Promise<string | undefined> => tried.then(() => undefined, messageOf);

function expectMessage(what: string, message: string | undefined, expected: RegExp): void {
  if (message === undefined) throw new Error(`${what} worked`);
  if (!expected.test(message)) throw new Error(`${what} failed with another error than expected: ${message}`);
}
