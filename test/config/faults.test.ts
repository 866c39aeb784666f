import test from 'ava';
import type {Fault} from '../../src/config/fault.ts';
import {loadGiven, oneRegistry, oneUpstream, refusal, type SettingsInput} from '../support/settings.ts';

const reported = async (given: SettingsInput): Promise<string[]> =>
  (await refusal(given)).faults.map(({path, value, problem}) =>
    [path, problem, value].filter(Boolean).join(' | '),
  );

const onlyFault = async (given: SettingsInput): Promise<Fault> => {
  const {faults} = await refusal(given);
  if (faults.length !== 1 || !faults[0]) throw new Error(`not one fault: ${JSON.stringify(faults)}`);
  return faults[0];
};

test('every fault is reported at once, with its place, its value and what is allowed', async (t) => {
  const yaml = `listen: {port: 99999}
lissten: {port: 1}
log: {level: loud}
registries:
  docker.io:
    default: true
    upstream: {url: https://registry-1.docker.io/v2}
    tags: {ttl: sixty, tll: 1s}
  Legacy:
    default: true
    aliases: [docker.io]
    upstream:
      url: http://legacy.test
      credentials: {username: me, passwordFile: /missing}
      ca: /no.pem
      timeouts: {idle: "\${IDLE}"}
`;
  const {faults, message} = await refusal({yaml, env: {BACKREF_CACHE: '1', BACKREF_CACHE_MEMORY: '1kB'}});
  const places = faults.map(({path, where}) => `${where} ${path}`.trim()).sort();
  t.deepEqual(places, [
    'BACKREF_CACHE',
    'BACKREF_CACHE_MEMORY cache.memory',
    'config/backref.yaml:10:14 registries.Legacy.default',
    'config/backref.yaml:11:15 registries.Legacy.aliases[0]',
    'config/backref.yaml:13:12 registries.Legacy.upstream.url',
    'config/backref.yaml:14:49 registries.Legacy.upstream.credentials.passwordFile',
    'config/backref.yaml:15:11 registries.Legacy.upstream.ca',
    'config/backref.yaml:16:24 registries.Legacy.upstream.timeouts.idle',
    'config/backref.yaml:1:16 listen.port',
    'config/backref.yaml:2:1 lissten',
    'config/backref.yaml:3:14 log.level',
    'config/backref.yaml:7:21 registries.docker.io.upstream.url',
    'config/backref.yaml:8:17 registries.docker.io.tags.ttl',
    'config/backref.yaml:8:29 registries.docker.io.tags.tll',
    'config/backref.yaml:9:3 registries.Legacy',
  ]);
  t.regex(message, /config\/backref\.yaml\): 15 faults\n/);
  t.regex(
    message,
    /registries\.docker\.io\.tags\.ttl \(config\/backref\.yaml:8:17\)\n.*500ms, 60s.*; found "sixty"/,
  );
});

/** A file of settings with one registry and one rule. */
const oneRule = ({who = '["*"]', where = '["r.test/**"]', may = '[pull]'}): string =>
  `${oneRegistry()}\naccess:\n  rules:\n    - {who: ${who}, where: ${where}, may: ${may}}`;

const UNITS = 'written 500ms, 60s, 5m, 12h or 7d';
const single: [title: string, given: SettingsInput, fault: string][] = [
  [
    'a port outside the range',
    {yaml: 'listen: {port: -1}'},
    'listen.port | must be a whole number from 0 to 65535 | -1',
  ],
  [
    'a fraction of a port',
    {yaml: 'listen: {port: 1.5}'},
    'listen.port | must be a whole number from 0 to 65535 | 1.5',
  ],
  [
    'a duration without a unit',
    {yaml: oneRegistry('tags: {ttl: 60}')},
    `registries.r.test.tags.ttl | must be forever or a duration from 0 to 3650d, ${UNITS} | 60`,
  ],
  [
    'a timer that Node would fire at once',
    {yaml: 'shutdown: {grace: 30d}'},
    `shutdown.grace | must be a duration from 0 to 24d, ${UNITS} | "30d"`,
  ],
  [
    'a memory cache without a limit',
    {yaml: 'cache: {memory: 0}'},
    'cache.memory | must be a size of at least 1MiB, written 256MiB, 1GB or as bytes | 0',
  ],
  [
    'a cache of nothing',
    {yaml: 'cache: {maxSize: 0%}'},
    'cache.maxSize | must be off, or a size, written 256MiB or as bytes, or a share of the volume, written 80%, of at least 1MiB or 1% | "0%"',
  ],
  [
    'a share of more than everything',
    {yaml: 'cache: {minFree: 101%}'},
    'cache.minFree | must be a size, written 256MiB or as bytes, or a share of the volume, written 80% | "101%"',
  ],
  [
    'a low watermark that is not below the high one',
    {yaml: 'cache: {lowWatermark: 95%}'},
    'cache.lowWatermark | must leave lowWatermark (95%) below highWatermark (95%) | "95%"',
  ],
  [
    'a high watermark below the default low one',
    {yaml: 'cache: {highWatermark: 50%}'},
    'cache.highWatermark | must leave lowWatermark (90%) below highWatermark (50%) | "50%"',
  ],
  [
    'a pattern whose bracket is not closed',
    {yaml: 'pins: [docker.io/library/*, "ghcr.io/{team"]'},
    'pins[1] | must be registry/repository with an optional :tag or @digest, in which * stands for a path component and ** for any number of them, e.g. docker.io/library/alpine:3.* | "ghcr.io/{team"',
  ],
  [
    'a tag where repositories are kept',
    {yaml: 'cache: {keep: [{match: "docker.io/library/alpine:3", newest: 3}]}'},
    'cache.keep[0].match | must be registry/repository, in which * stands for a path component and ** for any number of them, e.g. docker.io/library/* | "docker.io/library/alpine:3"',
  ],
  [
    'a repository with a tag where repositories are limited',
    {yaml: oneRegistry('repositories: {deny: ["team/app:1"]}')},
    'registries.r.test.repositories.deny[0] | must be the name of a repository without the registry, in which * stands for a path component and ** for any number of them, e.g. library/* or team/** | "team/app:1"',
  ],
  [
    'repositories that are not a mapping',
    {yaml: oneRegistry('repositories: [team/app]')},
    'registries.r.test.repositories | must be a mapping of allow, deny | a list',
  ],
  [
    'a text for the lifetimes of tags',
    {yaml: oneRegistry('tags: 60s')},
    'registries.r.test.tags | must be a mapping of ttl, maxStale, keepDeleted, absentTtl, or a list of such mappings | "60s"',
  ],
  [
    'a lifetime without a unit in a list of them',
    {yaml: oneRegistry('tags: [{match: v*, ttl: 60}]')},
    `registries.r.test.tags[0].ttl | must be forever or a duration from 0 to 3650d, ${UNITS} | 60`,
  ],
  [
    'a text in a list of lifetimes',
    {yaml: oneRegistry('tags: [{match: v*, ttl: 60s}, 60s]')},
    'registries.r.test.tags[1] | must be a mapping of match, ttl, maxStale, keepDeleted, absentTtl | "60s"',
  ],
  [
    'a repository without a tag where tags are matched',
    {yaml: oneRegistry('tags: [{match: [v*, team/app], ttl: 60s}]')},
    'registries.r.test.tags[0].match[1] | must be a pattern for tags, or repository:tag without the registry, e.g. v[0-9]* or library/alpine:3.*; all tags of a repository are library/alpine:* | "team/app"',
  ],
  [
    'a number where tags are matched',
    {yaml: oneRegistry('tags: [{match: 1.2, ttl: 60s}]')},
    'registries.r.test.tags[0].match | must be a list, e.g. [one, two] | 1.2',
  ],
  [
    'no pattern where tags are matched',
    {yaml: oneRegistry('tags: [{match: [], ttl: 60s}]')},
    'registries.r.test.tags[0].match | is empty: name a pattern, or leave match out for all other tags | a list',
  ],
  [
    'lifetimes that never count, after those of all other tags',
    {yaml: oneRegistry('tags: [{ttl: 60s}, {match: v*, ttl: forever}]')},
    'registries.r.test.tags[0] | has no match and so is for every tag; those after it would never count: put it last | a mapping',
  ],
  [
    'an absence for ever',
    {yaml: oneRegistry('tags: {absentTtl: forever}')},
    `registries.r.test.tags.absentTtl | must be a duration from 0 to 3650d, ${UNITS} | "forever"`,
  ],
  [
    'a list of rules without a rule',
    {yaml: 'access: {rules: []}'},
    'access.rules | is empty, and would deny everything: write at least one rule, or remove the key, so that anybody may pull | a list',
  ],
  [
    'a rule for nobody',
    {yaml: oneRule({who: '[]'})},
    'access.rules[0].who | is empty: name at least one caller | a list',
  ],
  [
    'an action that there is not',
    {yaml: oneRule({may: '[read]'})},
    'access.rules[0].may[0] | must be pull or push or delete or attach or admin | "read"',
  ],
  [
    'a caller of an unknown kind',
    {yaml: oneRule({who: '[usr:alice]'})},
    'access.rules[0].who[0] | is not the name of a caller (did you mean "user"?): write anonymous, *, or one of user:…, robot:…, group:…, cert:… | "usr:alice"',
  ],
  [
    'a caller without a name',
    {yaml: oneRule({who: '["user:"]'})},
    'access.rules[0].who[0] | is not the name of a caller: write anonymous, *, or one of user:…, robot:…, group:…, cert:… | "user:"',
  ],
  [
    'a place that is a digest',
    {yaml: oneRule({where: '["r.test/a@sha256:ab"]'})},
    'access.rules[0].where[0] | must be registry/repository with an optional :tag, in which * stands for a path component and ** for any number of them, e.g. apps.local/team-*/**; ** alone is everything | "r.test/a@sha256:ab"',
  ],
  [
    'a place of a registry that is not configured',
    {yaml: oneRule({where: '[s.test/**]'})},
    'access.rules[0].where[0] | matches nothing: "s.test" is not the name of a registry here. Write one of r.test | "s.test/**"',
  ],
  [
    'a place of a built-in registry whose repositories have two components',
    {yaml: 'access: {rules: [{who: ["*"], where: [docker.io/alpine], may: [pull]}]}'},
    'access.rules[0].where[0] | matches nothing: the repositories of docker.io have two components at least. Write docker.io/library/alpine | "docker.io/alpine"',
  ],
  [
    'a rule after one that is about the same',
    {
      yaml: `${oneRule({who: '[group:a, "user:*"]'})}\n    - {who: [user:bob, group:a], where: ["r.test/a:1"], may: [push]}`,
    },
    'access.rules[1] | never decides: rule 1 is about the same callers and places, and the first match decides. Put this one before it, or remove one of them | a mapping',
  ],
  [
    'a group in a group',
    {yaml: `${oneRegistry()}\naccess: {groups: {a: [user:x], b: [group:a]}}`},
    'access.groups.b[0] | is another group of this list: write the members of group:a instead | "group:a"',
  ],
  ['a word outside a choice', {yaml: 'log: {format: xml}'}, 'log.format | must be pretty or json | "xml"'],
  [
    'a push that is not offered',
    {yaml: oneRegistry('push: mirror')},
    'registries.r.test.push | must be deny or local or through | "mirror"',
  ],
  [
    'a scalar for a mapping',
    {yaml: 'listen: 5000'},
    'listen | must be a mapping of host, port, socket, socketMode, tls, serve, sendTimeout, trustedProxies, or a list of such mappings | 5000',
  ],
  [
    'a mapping for a scalar',
    {yaml: 'log: {level: {a: 1}}'},
    'log.level | must be debug or info or warn or error or silent | a mapping',
  ],
  [
    'a text for a list',
    {yaml: oneRegistry('aliases: a.test')},
    'registries.r.test.aliases | must be a list, e.g. [one, two] | "a.test"',
  ],
  ['a list for the file', {yaml: '- a'}, 'must be a mapping of settings, e.g. "listen: {port: 5000}"'],
  [
    'a mirror without an upstream',
    {yaml: 'registries: {r.test: {push: deny}}'},
    'registries.r.test.push | leaves a registry without upstream empty: write local, or add the upstream to mirror | "deny"',
  ],
  [
    'pushes through without an upstream',
    {yaml: 'registries: {r.test: {push: through}}'},
    'registries.r.test.push | needs an upstream to write to: write local, or add the upstream | "through"',
  ],
  [
    'an upstream that is not a mapping',
    {yaml: 'registries: {r.test: {upstream: "https://r.test", push: through}}'},
    'registries.r.test.upstream | must be a mapping of url, insecure, credentials, realmHosts, redirectHosts, ca, timeouts, concurrency, breaker, rateLimitStatus, quota | "https://r.test"',
  ],
  [
    'a manifest limit that is too small',
    {yaml: oneRegistry('maxManifest: 10kB')},
    'registries.r.test.maxManifest | must be a size from 64KiB to 16MiB, written 256MiB, 1GB or as bytes | "10kB"',
  ],
  [
    'a manifest limit above what is read of an upstream',
    {yaml: oneRegistry('maxManifest: 1GiB')},
    'registries.r.test.maxManifest | must be a size from 64KiB to 16MiB, written 256MiB, 1GB or as bytes | "1GiB"',
  ],
  [
    'a limit of no bytes',
    {yaml: oneRegistry('limits: {blob: 0}')},
    'registries.r.test.limits.blob | must be off or a size of at least 1B, written 256MiB, 1GB or as bytes | 0',
  ],
  [
    'indexes that are nested without end',
    {yaml: oneRegistry('limits: {depth: off}')},
    'registries.r.test.limits.depth | must be a whole number from 1 to 100 | "off"',
  ],
  [
    'a limit of no referrers',
    {yaml: oneRegistry('referrers: {keep: 0}')},
    'registries.r.test.referrers.keep | must be off or a whole number from 1 to 1000000 | 0',
  ],
  [
    'uploads that expire at once',
    {yaml: 'uploads: {expireAfter: 0}'},
    `uploads.expireAfter | must be a duration from 1s to 365d, ${UNITS} | 0`,
  ],
  [
    'an upstream without a URL',
    {yaml: oneUpstream('insecure: false')},
    'registries.r.test.upstream.url | is missing: write https://host or https://host:port',
  ],
  [
    'no registry at all',
    {yaml: 'registries: {}'},
    'registries | is empty: name at least one registry, or remove the key to use the built-in registries | a mapping',
  ],
  [
    'plain HTTP without permission',
    {yaml: oneUpstream('url: http://r.test')},
    'registries.r.test.upstream.url | is plain HTTP: write https://, or add insecure: true if the network is trusted | "http://r.test"',
  ],
  [
    'insecure over TLS',
    {yaml: oneUpstream('url: https://r.test', 'insecure: true')},
    'registries.r.test.upstream.insecure | only permits http://, and certificates are always verified: remove it; to trust a private certificate authority use upstream.ca | true',
  ],
  [
    'another scheme',
    {yaml: oneUpstream('url: oci://r.test')},
    'registries.r.test.upstream.url | must begin with https://, or with http:// and insecure: true; write https://host or https://host:port | "oci://r.test"',
  ],
  [
    'an unset variable',
    {yaml: oneUpstream('url: https://r.test', 'credentials: {username: me, password: "${TOKEN}"}')},
    'registries.r.test.upstream.credentials.password | refers to the environment variable TOKEN, which is not set: set it, or write ${TOKEN:-default}',
  ],
  [
    'a variable without a closing brace',
    {yaml: 'listen: {host: "${HOST"}', env: {HOST: 'x'}},
    'listen.host | has a "${" that does not begin a variable: write ${NAME} or ${NAME:-default}, or $${ for a literal "${" | "${HOST"',
  ],
  [
    'a home folder that no shell expands',
    {yaml: oneUpstream('url: https://r.test', 'credentials: {dockerConfig: ~/.docker/config.json}')},
    'registries.r.test.upstream.credentials.dockerConfig | must be a path; "~" is not expanded, write ${HOME} | "~/.docker/config.json"',
  ],
  [
    'a CA file that holds something else',
    {yaml: oneUpstream('url: https://r.test', 'ca: [/ca.pem]'), files: {'/ca.pem': 'hello'}},
    'registries.r.test.upstream.ca[0] | names a file that is not a PEM certificate | "/ca.pem"',
  ],
  [
    'an empty password file',
    {
      yaml: oneUpstream('url: https://r.test', 'credentials: {username: me, passwordFile: /p}'),
      files: {'/p': '\n'},
    },
    'registries.r.test.upstream.credentials.passwordFile | names a file that is empty | "/p"',
  ],
];

for (const [title, given, fault] of single)
  test(`refused: ${title}`, async (t) => {
    t.deepEqual(await reported(given), [fault]);
  });

test('an unknown key is a fault, with the probable key and those that are allowed', async (t) => {
  const {path, problem} = await onlyFault({yaml: oneRegistry('tags: {maxstale: 1d}')});
  t.is(path, 'registries.r.test.tags.maxstale');
  t.is(
    problem,
    'is not known (did you mean "maxStale"?): allowed here are ttl, maxStale, keepDeleted, absentTtl',
  );
});

test('an unknown key in a list is a fault, with the keys that are allowed there', async (t) => {
  const tags = await onlyFault({yaml: oneRegistry('tags: [{match: v*, ttl: 60s}, {tll: 1m}]')});
  t.is(tags.path, 'registries.r.test.tags[1].tll');
  t.is(
    tags.problem,
    'is not known (did you mean "ttl"?): allowed here are match, ttl, maxStale, keepDeleted, absentTtl',
  );
  const keep = await onlyFault({yaml: 'cache: {keep: [{match: "docker.io/library/*", newest: 1, max: 2}]}'});
  t.is(keep.problem, 'is not known: allowed here are match, newest');
});

test('a mapping that may be a list has no pattern: it is for every tag', async (t) => {
  const {path, problem} = await onlyFault({yaml: oneRegistry('tags: {match: v*}')});
  t.is(path, 'registries.r.test.tags.match');
  t.is(problem, 'is not known: allowed here are ttl, maxStale, keepDeleted, absentTtl');
});

test('a key that resembles no known one is a fault without a suggestion', async (t) => {
  t.is(
    (await onlyFault({yaml: 'cache: {colour: red}'})).problem,
    'is not known: allowed here are memory, maxSize, minFree, highWatermark, lowWatermark, keep',
  );
});

test('a duplicate key is a fault, at its second place', async (t) => {
  const fault = await onlyFault({yaml: 'listen: {port: 1}\nlog: {level: info}\nlisten: {port: 2}\n'});
  t.is(fault.where, 'config/backref.yaml:3:1');
  t.regex(fault.problem, /^duplicate key/);
});

test('invalid YAML is a fault at its place', async (t) => {
  const fault = await onlyFault({yaml: 'listen: {port: 1}\nlog: [\n'});
  t.regex(fault.where ?? '', /^config\/backref\.yaml:\d+:\d+$/);
});

test('a configuration file that does not exist is a fault when BACKREF_CONFIG names it', async (t) => {
  const fault = await onlyFault({env: {BACKREF_CONFIG: 'nowhere.yaml'}});
  t.is(fault.where, 'nowhere.yaml');
  t.regex(fault.problem, /does not exist/);
});

test('two registries cannot share a name, an alias or a request host', async (t) => {
  const yaml = `registries:
  a.test: {upstream: {url: https://a.test}, aliases: [c.test], hosts: [m.test]}
  b.test: {upstream: {url: https://b.test}, aliases: [a.test, c.test], hosts: [m.test]}`;
  t.deepEqual(await reported({yaml}), [
    'registries.b.test.aliases[0] | must be unique: "a.test" is already at registries.a.test | "a.test"',
    'registries.b.test.aliases[1] | must be unique: "c.test" is already at registries.a.test.aliases[0] | "c.test"',
    'registries.b.test.hosts[0] | must be unique: "m.test" is already at registries.a.test.hosts[0] | "m.test"',
  ]);
});

test('the name of a registry is a host with an optional port', async (t) => {
  const yaml = (name: string) => `registries: {"${name}": {upstream: {url: "https://r.test"}}}`;
  for (const name of [
    'Docker.io',
    'https://ghcr.io',
    'ghcr.io/org',
    '5000',
    'a..b',
    '-a.test',
    'r.test:99999',
    '../x',
    '',
  ])
    t.regex((await onlyFault({yaml: yaml(name)})).problem, /must be a lower-case host/, name);
});

test('credentials are an account with one password, or a Docker configuration', async (t) => {
  const refused = [
    '{username: me}',
    '{password: secret}',
    '{username: me, password: secret, passwordFile: /p}',
    '{username: me, dockerConfig: /d}',
    '{}',
  ];
  for (const credentials of refused) {
    const yaml = oneUpstream('url: https://r.test', `credentials: ${credentials}`);
    const {path} = await onlyFault({yaml, files: {'/p': 'x', '/d': '{}'}});
    t.is(path, 'registries.r.test.upstream.credentials', credentials);
  }
});

const withPasswords: Record<string, SettingsInput> = {
  'a password of the wrong type': {
    yaml: oneUpstream('url: https://r.test', 'credentials: {username: me, password: 5318008}'),
  },
  'a password where a mapping belongs': {yaml: oneUpstream('url: https://r.test', 'credentials: 5318008x')},
  'a password under a misspelled key': {
    yaml: oneUpstream('url: https://r.test', 'credentials: {username: me, pasword: 5318008x}'),
  },
  'a password under a key of the upstream': {
    yaml: oneUpstream('url: https://r.test', 'password: 5318008x'),
  },
  'a password in a URL': {yaml: oneUpstream('url: https://me:5318008x@r.test')},
  'a password of a variable in a URL': {
    yaml: oneUpstream('url: https://me:${TOKEN}@r.test'),
    env: {TOKEN: '5318008x'},
  },
  'a password that YAML reads as a tag': {
    yaml: oneUpstream('url: https://r.test', 'credentials: {username: me, password: !5318008x }'),
  },
  'a password that YAML reads as an alias': {
    yaml: oneUpstream('url: https://r.test', 'credentials: {username: me, password: *5318008x }'),
  },
  'a password file that is a Docker configuration': {
    yaml: oneUpstream('url: https://r.test', 'credentials: {dockerConfig: /d}'),
    files: {'/d': '5318008x'},
  },
};

for (const [title, given] of Object.entries(withPasswords))
  test(`no fault shows ${title}`, async (t) => {
    const {message, faults} = await refusal(given);
    t.true(faults.length > 0);
    t.notRegex(message + JSON.stringify(faults), /5318008/);
  });

test('rules and groups have no environment variable', async (t) => {
  for (const name of ['BACKREF_ACCESS_RULES', 'BACKREF_ACCESS_GROUPS']) {
    const {where, problem} = await onlyFault({yaml: oneRegistry(), env: {[name]: '[]'}});
    t.is(where, name);
    t.regex(problem, /is not a setting.* BACKREF_ACCESS_MODE/);
  }
});

test('rules that only overlap are all reachable', async (t) => {
  const rules = [
    '{who: [user:a], where: ["r.test/x/**"], may: [pull]}',
    '{who: [user:a, user:b], where: ["r.test/x/**"], may: [pull]}',
    '{who: [user:a], where: ["r.test/**:v1"], may: [push]}',
    '{who: ["user:*"], where: ["r.test/x/**", "r.test/y"], may: [pull]}',
    '{who: [group:g], where: ["r.test/**"], may: [pull]}',
    '{who: [anonymous], where: ["r.test/**"], may: []}',
  ];
  const yaml = `${oneRegistry()}\naccess: {rules: [${rules.join(', ')}]}`;
  t.is((await loadGiven({yaml})).access.rules?.length, rules.length);
});
