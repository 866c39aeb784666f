import * as z from 'zod';
import {isLoopback} from '../address.ts';
import {parseCallerGlob} from '../caller-glob.ts';
import {type IssuerConfig, JWT_ALGORITHMS} from '../config.ts';
import type {PlacedFault} from './fault.ts';
import {formatPath, type Path, subtree, type Tree, valueAt} from './tree.ts';
import {formatDuration} from './units.ts';
import {choice, duration, flag, list, mapping, path, scalar, text, textOrList} from './values.ts';

const NAME = /^[a-z][a-z0-9-]{0,31}$/;
/** What the names of other callers begin with. */
const RESERVED = ['anonymous', 'user', 'robot', 'group', 'cert'];
const DAY_MS = 24 * 60 * 60 * 1000;

const issuerName = scalar(
  'must be a name of at most 32 lower-case letters, digits and "-" that begins with a letter, e.g. gha; names in rules begin with it',
  (value) => (typeof value === 'string' && NAME.test(value) ? value : undefined),
);

const claimGlob = scalar(
  'must be a text, or a pattern in which * stands for any characters but "/" and ** for any at all, e.g. org/*',
  (value) => (typeof value === 'string' && parseCallerGlob(value) ? value : undefined),
);

/** Somebody whose JWTs are accepted as credentials. */
export const issuerSettings = mapping({
  name: issuerName,
  issuer: text,
  audience: textOrList(text).refine((audience) => audience.length > 0, {
    error: 'is empty: name the audience that tokens must be for, e.g. backref',
  }),
  jwks: path.optional(),
  algorithms: list(choice(...JWT_ALGORITHMS)).prefault([...JWT_ALGORITHMS]),
  require: z
    .record(z.string(), claimGlob, {error: 'must be a mapping of claims to the values that they must have'})
    .prefault({}),
  claims: list(text).optional(),
  maxAge: duration(1000, 3650 * DAY_MS).optional(),
  insecure: flag.prefault(false),
  ca: textOrList(path).prefault([]),
});

const fault = (at: Path, problem: string): PlacedFault => ({path: formatPath(at), at, problem});

/** Finds issuers that could be mistaken for another, and keys that would be read over an open network. */
export function issuerFaults(tree: Tree): PlacedFault[] {
  const issuers = subtree(tree, 'access')['issuers'];
  if (!Array.isArray(issuers)) return [];
  return issuers.flatMap((issuer, index) => {
    const at: Path = ['access', 'issuers', index];
    const earlier = issuers.slice(0, index);
    return [
      ...faultOfName(issuer, at),
      ...faultsOfDuplicate(issuer, earlier, at),
      ...faultOfKeys(issuer, at),
    ];
  });
}

function faultOfName(issuer: unknown, at: Path): PlacedFault[] {
  const name = String(valueAt(issuer, ['name']));
  if (!RESERVED.includes(name)) return [];
  return [
    fault(
      [...at, 'name'],
      `is what the names of other callers begin with: choose one besides ${RESERVED.join(', ')}`,
    ),
  ];
}

function faultsOfDuplicate(issuer: unknown, earlier: readonly unknown[], at: Path): PlacedFault[] {
  return ['name', 'issuer'].flatMap((key) => {
    const value = valueAt(issuer, [key]);
    const index = earlier.findIndex((other) => value !== undefined && valueAt(other, [key]) === value);
    return index === -1
      ? []
      : [
          fault(
            [...at, key],
            `must be unique: it is already at ${formatPath(['access', 'issuers', index, key])}`,
          ),
        ];
  });
}

/** Whoever can change the keys on their way can sign anything. */
function faultOfKeys(issuer: unknown, at: Path): PlacedFault[] {
  const jwks = valueAt(issuer, ['jwks']);
  const key = jwks === undefined ? 'issuer' : 'jwks';
  const url = valueAt(issuer, [key]);
  if (typeof url !== 'string' || (key === 'jwks' && !/^https?:/i.test(url))) return [];
  const parsed = URL.parse(url);
  if (parsed?.protocol === 'https:') return [];
  if (parsed?.protocol !== 'http:')
    return [
      fault(
        [...at, key],
        'must be a URL that begins with https://, where its keys are found; for an issuer of another kind, name a file or a URL of its keys as jwks',
      ),
    ];
  const host = parsed.hostname.replace(/^\[(.*)\]$/, '$1');
  if (isLoopback(host) || String(valueAt(issuer, ['insecure'])) === 'true') return [];
  return [
    fault(
      [...at, key],
      'is plain HTTP, where anybody on the way could change the keys: write https://, or add insecure: true if the network is trusted',
    ),
  ];
}

/** Those that give everybody who has an account a token for any audience. */
const PUBLIC_ISSUERS = [
  'https://token.actions.githubusercontent.com',
  'https://gitlab.com',
  'https://accounts.google.com',
];

/** A rule that is not narrow enough lets strangers in. */
export function warnOfIssuer(
  {issuer, require}: IssuerConfig,
  index: number,
): {path: string; problem: string}[] {
  if (!PUBLIC_ISSUERS.includes(issuer) || Object.keys(require).length > 0) return [];
  return [
    {
      path: formatPath(['access', 'issuers', index]),
      problem: `everybody with an account can get a token of ${issuer} for your audience: add require with a claim that only your own tokens have, e.g. {repository_owner: org}`,
    },
  ];
}

/** The issuer in the shape and the units of the file, without certificates. */
export const describeIssuer = ({maxAge, ca, ...issuer}: IssuerConfig): Tree => ({
  ...issuer,
  ...(maxAge === undefined ? {} : {maxAge: formatDuration(maxAge)}),
  ca: ca.map((pem) => `[${pem.length} characters of PEM]`),
});
