import type {Scope} from '../rig/scope.ts';
import {buildCatalog} from './catalog.ts';
import {findClients} from './clients.ts';
import {createDisk} from './disk.ts';
import {createHttpClient} from './http-client.ts';
import {createJudge} from './judge.ts';
import {createModel} from './model.ts';
import {createServerUnderTest} from './server.ts';
import {createStoredState} from './stored.ts';
import type {Tally} from './tally.ts';
import {HOSTED, OVERLAY} from './traffic.ts';
import {startUpstream, type Upstream} from './upstream.ts';
import {CALM, type World} from './world.ts';

const REPOSITORIES = 12;
/** Some 15 MiB of it are metadata and the ballast; what is left is about half of what the upstreams have. */
const CACHE_SIZE = '40MiB';
/** One upstream has the Referrers API and wants tokens; the other one has neither. */
const MODERN = 'alpha.test';
const LEGACY = 'beta.test';

/** Short, so that a run of minutes sees many of each. */
const TIMEOUTS = {connect: '1s', headers: '2s', idle: '2s'};
const BREAKER = {failures: 5, openFor: '1s'};
const LIFETIMES = {ttl: '1s', maxStale: '30d'};

const settingsOf = ({url}: Upstream) => ({
  upstream: {url, insecure: true, timeouts: TIMEOUTS, breaker: BREAKER},
  tags: {...LIFETIMES, absentTtl: '1s'},
  referrers: LIFETIMES,
});

/** Starts upstreams and the server between them and the clients. Everything ends with the scope. */
export async function createWorld(scope: Scope, tally: Tally, say: (line: string) => void): Promise<World> {
  const modern = await startUpstream(scope, {host: MODERN, referrersApi: true, tokens: true});
  const legacy = await startUpstream(scope, {host: LEGACY, referrersApi: false, tokens: false});
  const catalogs = {modern: buildCatalog('app', REPOSITORIES), legacy: buildCatalog('lib', REPOSITORIES)};
  modern.add(...catalogs.modern.images, ...[...catalogs.modern.referrers.values()].flat());
  legacy.add(...catalogs.legacy.images, ...[...catalogs.legacy.referrers.values()].flat());

  const model = createModel([HOSTED]);
  model.addCatalog(MODERN, catalogs.modern);
  model.addCatalog(LEGACY, catalogs.legacy);
  model.addCatalog(OVERLAY, catalogs.modern);

  const disk = await createDisk(scope);
  const {folder} = disk;
  const server = await createServerUnderTest(scope, {
    folder,
    registries: {
      [MODERN]: settingsOf(modern),
      [LEGACY]: settingsOf(legacy),
      [OVERLAY]: {...settingsOf(modern), push: 'local'},
      [HOSTED]: {push: 'local'},
    },
    settings: {shutdown: {grace: '5s'}, cache: {memory: '1MiB', maxSize: CACHE_SIZE}},
    preloaded: disk.env,
  });
  await server.start();
  return {
    scope,
    server,
    disk,
    clients: await findClients(scope, say),
    stored: createStoredState(folder),
    upstreams: new Map([
      [MODERN, modern],
      [LEGACY, legacy],
    ]),
    images: new Map([
      [MODERN, catalogs.modern.images],
      [LEGACY, catalogs.legacy.images],
      [OVERLAY, catalogs.modern.images.slice(0, 12)],
    ]),
    model,
    judge: createJudge(tally),
    tally,
    ask: createHttpClient(),
    condition: CALM,
  };
}
