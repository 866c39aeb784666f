/** The users of an htpasswd file: bcrypt hashes by name. */
export type PasswordHashes = ReadonlyMap<string, string>;

/** What is wrong with the line of an htpasswd file. */
export interface HtpasswdFault {
  /** The first line is 1. */
  readonly line: number;
  readonly problem: string;
}

const BCRYPT = /^\$2[aby]\$(?<cost>\d\d)\$[./A-Za-z0-9]{53}$/;
/** With a lower cost, a stolen file is soon guessed; a higher one takes seconds for each login. */
const MIN_COST = 4;
const MAX_COST = 14;

/** What rules can name. */
const NAME = /^[A-Za-z0-9][\w.@+-]{0,127}$/;

/** The other schemes that `htpasswd` writes. */
const SCHEMES: readonly (readonly [begins: string, name: string])[] = [
  ['$apr1$', 'MD5 ($apr1$)'],
  ['$1$', 'MD5 ($1$)'],
  ['{SHA}', 'SHA-1 ({SHA})'],
  ['$5$', 'SHA-256 ($5$)'],
  ['$6$', 'SHA-512 ($6$)'],
  ['$y$', 'yescrypt ($y$)'],
  ['$argon2', 'Argon2'],
];

const REMEDY = 'write the password again with "htpasswd -B"';

/** Reads an htpasswd file: lines of `name:hash`, and comments that begin with `#`. */
export function parseHtpasswd(text: string): {users: PasswordHashes; faults: readonly HtpasswdFault[]} {
  const users = new Map<string, string>();
  const faults: HtpasswdFault[] = [];
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    const colon = line.indexOf(':');
    const name = line.slice(0, Math.max(0, colon));
    const hash = line.slice(colon + 1);
    const problem = whyRefused(name, hash, users);
    if (problem === undefined) users.set(name, hash);
    else faults.push({line: index + 1, problem});
  }
  return {users, faults};
}

/** In one sentence. Never quotes the hash. */
export const describeFault = ({line, problem}: HtpasswdFault): string => `line ${line} ${problem}`;

function whyRefused(name: string, hash: string, users: PasswordHashes): string | undefined {
  if (!NAME.test(name))
    return 'does not begin with a user name and a colon: a name has up to 128 letters, digits and . _ @ + -';
  if (users.has(name)) return `names ${name} again: write each user once`;
  const [, scheme] = SCHEMES.find(([begins]) => hash.startsWith(begins)) ?? [];
  if (scheme !== undefined) return `has the password of ${name} as ${scheme}: only bcrypt is read; ${REMEDY}`;
  const cost = BCRYPT.exec(hash)?.groups?.['cost'];
  if (cost === undefined) return `has no bcrypt hash for ${name}: only bcrypt is read; ${REMEDY}`;
  if (Number(cost) >= MIN_COST && Number(cost) <= MAX_COST) return undefined;
  return `has the password of ${name} with cost ${Number(cost)}: it must be from ${MIN_COST} to ${MAX_COST}; ${REMEDY} -C 10`;
}
