/** One challenge of a `WWW-Authenticate` field. */
export interface Challenge {
  /** Lower case: `bearer`, `basic`. */
  scheme: string;
  token68: string | undefined;
  /** Names in lower case; values without quotes and escapes. Of a name that stands twice, the first. */
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
 * Reads a `WWW-Authenticate` field by the grammar of RFC 9110, section 11.6.1; several field lines are joined with
 * commas before. A quoted value keeps its commas: `scope="repository:a:pull,push"` is one value. What follows a
 * malformed part is not read.
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
