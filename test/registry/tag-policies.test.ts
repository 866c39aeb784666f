import test from 'ava';
import fc from 'fast-check';
import type {RegistryConfig} from '../../src/config.ts';
import {parseName, parseReference, type Tag} from '../../src/oci/name.ts';
import {createTagRule, policyOf} from '../../src/registry/tag-policies.ts';
import {createMovableClock, DAY, type RegistryOverrides, startBackref} from '../support/backref.ts';
import {headAnswer, manifestAnswer, plainManifest} from '../support/content.ts';
import {createScriptedUpstream, type ScriptedAnswer} from '../support/scripted-upstream.ts';
import {loadGiven, oneRegistry} from '../support/settings.ts';

const lifetimes = (ttl: number) => ({ttl, maxStale: 7 * DAY, keepDeleted: 7 * DAY, absentTtl: 5000});
const rule = (ttl: number, ...match: string[]) => ({match, ...lifetimes(ttl)});
const FOREVER = 3650 * DAY;

const RULES = [
  rule(1, 'team/**:latest'),
  rule(2, 'v[0-9]*', 'library/nginx:1.*'),
  rule(3, 'latest', 'v1'),
].map(createTagRule);

const ROWS: [image: string, ttl: number][] = [
  ['team/a/b:latest', 1],
  ['team/app:v1', 2],
  ['library/nginx:1.27', 2],
  ['library/nginx:latest', 3],
  ['library/httpd:1.27', 0],
  ['team/app:version', 0],
];

for (const [image, ttl] of ROWS) {
  test(`the first rule that matches ${image} counts: ${ttl || 'none does'}`, (t) => {
    const [name = '', tag = ''] = image.split(':');
    const registry = {tags: lifetimes(0), tagRules: RULES};
    t.is(policyOf(registry, parseName(name), parseReference(tag) as Tag).ttl, ttl);
  });
}

test('without a rule that matches, every tag has the policy of the registry, the very same', (t) => {
  const words = fc.stringMatching(/^[a-z0-9]{1,8}$/);
  const tags = lifetimes(60_000);
  fc.assert(
    fc.property(words, words, (name, tag) => {
      const [repository, reference] = [parseName(`team/${name}`), tag as Tag];
      return [[], [createTagRule(rule(1, 'other/**:*'))]].every(
        (tagRules) => policyOf({tags, tagRules}, repository, reference) === tags,
      );
    }),
  );
  t.pass();
});

const [first, second] = [plainManifest(), plainManifest()];
const AT = '/v2/library/app/manifests';
const asked = (tag: string, answer: ScriptedAnswer, method = 'GET') => ({
  request: `${method} ${AT}/${tag}`,
  answer,
});

async function start(t: Parameters<typeof startBackref>[0], url: string, changes: RegistryOverrides = {}) {
  const proxy = await startBackref(t, {registries: [{url, ...changes}], clock: createMovableClock()});
  return {
    ...proxy,
    pull: async (tag: string, headers = {}) => (await proxy.ask(`${AT}/${tag}`, {headers})).headers,
  };
}

test('a tag that is fresh for ever is asked for once, others when their lifetime has passed', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    asked('v1.2.3', manifestAnswer(first)),
    asked('latest', manifestAnswer(first)),
    asked('latest', headAnswer(first), 'HEAD'),
  ]);
  const tagRules = [{...rule(FOREVER, 'v[0-9]*'), maxStale: FOREVER}];
  const {clock, pull} = await start(t, upstream.url, {tagRules});
  t.is((await pull('v1.2.3'))['cache-status'], `backref;fwd=uri-miss;stored;ttl=${FOREVER / 1000}`);
  t.is((await pull('latest'))['cache-status'], 'backref;fwd=uri-miss;stored;ttl=60');
  clock.move(1000 * DAY);
  t.is((await pull('v1.2.3'))['cache-status'], `backref;hit;ttl=${(FOREVER - 1000 * DAY) / 1000}`);
  t.is((await pull('latest'))['cache-status'], 'backref;fwd=stale;ttl=60;detail=unchanged');
});

test('a tag that is fresh for ever is still asked for on request, and served stale however old it is', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    asked('v1', manifestAnswer(first)),
    asked('v1', headAnswer(second), 'HEAD'),
    asked(second.digest, manifestAnswer(second)),
  ]);
  const tagRules = [{...rule(FOREVER, 'v*'), maxStale: FOREVER}];
  const {clock, pull} = await start(t, upstream.url, {tagRules});
  await pull('v1');
  clock.move(100 * DAY);
  t.is((await pull('v1', {'Cache-Control': 'no-cache'}))['docker-content-digest'], second.digest);
  await upstream.stop();
  clock.move(100 * DAY);
  const stale = await pull('v1', {'Cache-Control': 'no-cache'});
  t.is(stale['docker-content-digest'], second.digest);
  t.regex(String(stale['warning']), /^299 /);
});

test('each rule has its own times for a failing upstream, a deleted tag and an absent one', async (t) => {
  const upstream = await createScriptedUpstream(
    t,
    [
      asked('kept', manifestAnswer(first)),
      asked('gone', manifestAnswer(first)),
      asked('kept', {status: 404}, 'HEAD'),
      asked('gone', {status: 404}, 'HEAD'),
      {...asked('absent', {status: 404}), times: 1},
      {...asked('other', {status: 404}), times: 2},
    ],
    {anyOrder: true},
  );
  const tagRules = [
    {...rule(60_000, 'gone'), keepDeleted: 0},
    {...rule(60_000, 'absent'), absentTtl: DAY},
  ];
  const {clock, ask, pull} = await start(t, upstream.url, {tagRules});
  const statusOf = async (tag: string) => (await ask(`${AT}/${tag}`)).status;
  for (const tag of ['kept', 'gone']) t.is(await statusOf(tag), 200);
  for (const tag of ['absent', 'other']) t.is(await statusOf(tag), 404);
  clock.move(60_000);
  for (const tag of ['absent', 'other', 'gone']) t.is(await statusOf(tag), 404, tag);
  const until = new Date(clock.now() + 7 * DAY).toISOString();
  t.true(String((await pull('kept'))['warning']).includes(`served until ${until}`));
});

test('while the upstream fails, a tag is served for as long as its own rule permits', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    asked('strict', manifestAnswer(first)),
    asked('lax', manifestAnswer(first)),
  ]);
  const {clock, ask, pull, server} = await start(t, upstream.url, {
    tagRules: [{...rule(1000, 'strict'), maxStale: DAY}],
  });
  for (const tag of ['strict', 'lax']) await pull(tag);
  await upstream.stop();
  const commands = await server.commands();
  const ready = async () => {
    const images = ['app:strict', 'app:lax'];
    const {readiness} = await commands.ready({
      images,
      platforms: [],
      signal: new AbortController().signal,
      progress: () => {},
    });
    return readiness.map(({pulls}) => pulls);
  };
  clock.move(DAY);
  for (const tag of ['strict', 'lax']) t.is((await ask(`${AT}/${tag}`)).status, 200, tag);
  t.deepEqual(await ready(), [true, true]);
  clock.move(1);
  t.is((await ask(`${AT}/strict`)).status, 503);
  t.is((await ask(`${AT}/lax`)).status, 200);
  t.deepEqual(await ready(), [false, true]);
});

test('as a rate limit runs out, each tag widens from its own lifetime, up to its own maxStale', async (t) => {
  const limited = (answer: ScriptedAnswer): ScriptedAnswer => ({
    ...answer,
    headers: {...answer.headers, 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '0;w=21600'},
  });
  const upstream = await createScriptedUpstream(
    t,
    ['short', 'long', 'never', 'other'].map((tag) => asked(tag, limited(manifestAnswer(first)))),
  );
  const tagRules = [{...rule(1000, 'short'), maxStale: 60_000}, rule(3 * DAY, 'long'), rule(0, 'never')];
  const {clock, pull} = await start(t, upstream.url, {tagRules});
  const ttls = [];
  for (const tag of ['short', 'long', 'never', 'other'])
    ttls.push(/ttl=(\d+)/.exec(String((await pull(tag))['cache-status']))?.[1]);
  t.deepEqual(ttls, ['60', String((3 * DAY) / 1000), '0', '5400']);
  clock.move(30_000);
  t.is((await pull('short'))['cache-status'], 'backref;hit;ttl=30;detail=quota');
  t.is((await pull('long'))['cache-status'], `backref;hit;ttl=${(3 * DAY) / 1000 - 30}`);
});

test('a reload changes the lifetimes of tags that are here already, from the next request on', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    asked('v1', manifestAnswer(first)),
    asked('v1', headAnswer(first), 'HEAD'),
  ]);
  const {url} = upstream;
  const {clock, pull, reload} = await start(t, url);
  await pull('v1');
  clock.move(DAY);
  reload({registries: [{url, tagRules: [rule(FOREVER, 'v1')]}]});
  t.is((await pull('v1'))['cache-status'], `backref;hit;ttl=${(FOREVER - DAY) / 1000}`);
  reload({registries: [{url, tagRules: [rule(FOREVER, 'v2')]}]});
  t.is((await pull('v1'))['cache-status'], 'backref;fwd=stale;ttl=60;detail=unchanged');
});

test('rules are about tags: lists of tags and digests age by the lifetimes of all other tags', async (t) => {
  const list = {
    request: 'GET /v2/library/app/tags/list?n=1000',
    answer: {headers: {'Content-Type': 'application/json'}, body: '{"name":"library/app","tags":["1"]}'},
    times: 2,
  };
  const missing = {...asked(first.digest, {status: 404}), times: 2};
  const upstream = await createScriptedUpstream(t, [list, missing], {anyOrder: true});
  const {ask, clock} = await start(t, upstream.url, {
    tagRules: [{...rule(FOREVER, '*'), absentTtl: FOREVER}],
  });
  for (let time = 0; time < 2; time++) {
    t.is((await ask('/v2/library/app/tags/list')).status, 200);
    t.is((await ask(`${AT}/${first.digest}`)).status, 404);
    clock.move(60_000);
  }
});

test('what a configuration file says of some tags and repositories is what happens', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    asked('1.2.3', manifestAnswer(first)),
    asked('latest', manifestAnswer(first)),
    asked('latest', headAnswer(first), 'HEAD'),
  ]);
  const {registries} = await loadGiven({
    yaml: oneRegistry(
      'repositories: {allow: [library/*], deny: [library/secret]}',
      'tags: [{match: ["[0-9]*.[0-9]*.[0-9]*"], ttl: forever}, {ttl: 5m}]',
    ),
  });
  const {repositories, tags, tagRules} = registries[0] as RegistryConfig;
  const {ask, clock, pull} = await start(t, upstream.url, {repositories, tags, tagRules});
  await pull('1.2.3');
  t.is((await pull('latest'))['cache-status'], 'backref;fwd=uri-miss;stored;ttl=300');
  clock.move(30 * DAY);
  t.is((await pull('1.2.3'))['cache-status'], `backref;hit;ttl=${(FOREVER - 30 * DAY) / 1000}`);
  t.is((await pull('latest'))['cache-status'], 'backref;fwd=stale;ttl=300;detail=unchanged');
  for (const name of ['library/secret', 'team/app'])
    t.is((await ask(`/v2/${name}/manifests/latest`)).status, 404, name);
});
