import test from 'ava';
import {describeFault, parseHtpasswd} from '../../src/identity/htpasswd.ts';

const HASH = `$2y$10$${'a'.repeat(53)}`;

test('users are read from lines of names and bcrypt hashes, beside comments and empty lines', (t) => {
  const {users, faults} = parseHtpasswd(
    `# team\r\nalice:${HASH}\r\n\n  bob.b@example:$2b$04$${'.'.repeat(53)}  \n`,
  );
  t.deepEqual(faults, []);
  t.deepEqual([...users.keys()], ['alice', 'bob.b@example']);
  t.is(users.get('alice'), HASH);
});

const FAULTS: [line: string, problem: RegExp][] = [
  [
    'alice:$apr1$abc$def',
    /line 2 has the password of alice as MD5 \(\$apr1\$\): only bcrypt is read; .*htpasswd -B/,
  ],
  ['alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=', /as SHA-1/],
  ['alice:$6$salt$hash', /as SHA-512/],
  ['alice:$argon2id$v=19$x', /as Argon2/],
  ['alice:secret', /line 2 has no bcrypt hash for alice/],
  ['alice:', /no bcrypt hash/],
  [`alice:$2b$10$${'a'.repeat(52)}`, /no bcrypt hash/],
  [`alice:$2x$10$${'a'.repeat(53)}`, /no bcrypt hash/],
  [`alice:$2b$15$${'a'.repeat(53)}`, /with cost 15: it must be from 4 to 14/],
  [`alice:$2b$03$${'a'.repeat(53)}`, /with cost 3/],
  [`bob:${HASH}`, /names bob again/],
  [`a*:${HASH}`, /does not begin with a user name and a colon/],
  [`:${HASH}`, /does not begin with a user name/],
  ['no colon', /does not begin with a user name/],
];

for (const [line, problem] of FAULTS)
  test(`"${line.slice(0, 20)}" is refused with its line and the reason, and without its hash`, (t) => {
    const {faults} = parseHtpasswd(`bob:${HASH}\n${line}\n`);
    const [fault] = faults;
    t.is(faults.length, 1);
    t.regex(fault ? describeFault(fault) : '', problem);
    t.notRegex(fault ? describeFault(fault) : '', /aaaa|secret|W6ph/);
  });
