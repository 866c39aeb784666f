import {getDomain} from 'tldts';

/** One challenge of a `WWW-Authenticate` field. */
export interface Challenge {
  /** Lower case: `bearer`, `basic`. */
  scheme: string;
  token68: string | undefined;
  /** Names in lower case; values without quotes and escapes. A repeated name keeps its first value. */
  params: ReadonlyMap<string, string>;
}

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const SEPARATORS = /[ \t,]*/y;
const PARAM = new RegExp(
  `(${TOKEN})[ \\t]*=[ \\t]*(?:(${TOKEN})|"((?:[^"\\\\]|\\\\.)*)")(?=[ \\t]*(?:,|$))`,
  'ys',
);
const SCHEME = new RegExp(`(${TOKEN})(?=[ \\t,]|$)`, 'y');
const TOKEN68 = /[ \t]+([A-Za-z0-9._~+/-]+=*)(?=[ \t]*(?:,|$))/y;

/**
 * Parses a `WWW-Authenticate` field by the grammar of RFC 9110, section 11.6.1. Several field lines must be joined with
 * commas first. A quoted value keeps its commas: `scope="repository:a:pull,push"` is one value. Everything after a
 * malformed part is ignored.
 */
export function parseChallenges(field: string): Challenge[] {
  const challenges: {scheme: string; token68: string | undefined; params: Map<string, string>}[] = [];
  let at = 0;
  const take = (pattern: RegExp): RegExpExecArray | undefined => {
    pattern.lastIndex = at;
    const match = pattern.exec(field);
    if (!match) return undefined;
    at = pattern.lastIndex;
    return match;
  };

  for (;;) {
    take(SEPARATORS);
    if (at >= field.length) return challenges;
    const current = challenges.at(-1);
    const param = current && current.token68 === undefined ? take(PARAM) : undefined;
    if (current && param) {
      const [, name = '', plain, quoted = ''] = param;
      const key = name.toLowerCase();
      if (!current.params.has(key)) current.params.set(key, plain ?? quoted.replace(/\\(.)/gs, '$1'));
      continue;
    }
    const scheme = take(SCHEME)?.[1];
    if (scheme === undefined) return challenges;
    challenges.push({scheme: scheme.toLowerCase(), token68: take(TOKEN68)?.[1], params: new Map()});
  }
}

/**
 * Decides whether a token service may be used for an upstream. A registry that could name any realm could send our
 * credentials anywhere, so the realm's host must share the upstream's registrable domain, or be listed. Domains that are
 * open to anyone, such as `github.io`, count as public suffixes. IP addresses and `localhost` must be equal.
 * @param realmHosts the setting `upstream.realmHosts`: `host` or `host:port`.
 * @returns undefined when it may; otherwise what is wrong and which setting allows it.
 */
export function refusedRealm(
  realm: URL,
  upstream: URL,
  {realmHosts, insecure}: {realmHosts: readonly string[]; insecure: boolean},
): string | undefined {
  if (realm.protocol !== 'https:' && !(realm.protocol === 'http:' && insecure)) {
    return `its token service ${realm.protocol}//${realm.host} is not https; only an upstream with "insecure: true" may use http`;
  }
  if (realm.hostname === upstream.hostname) return undefined;
  if (realmHosts.includes(realm.hostname) || realmHosts.includes(realm.host)) return undefined;
  const domain = getDomain(realm.hostname, {allowPrivateDomains: true});
  if (domain !== null && domain === getDomain(upstream.hostname, {allowPrivateDomains: true}))
    return undefined;
  return `its token service ${realm.host} is outside the upstream's domain; if this is intended, add "${realm.hostname}" to upstream.realmHosts`;
}
