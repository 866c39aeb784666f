import {parseCallerGlob} from '../caller-glob.ts';
import {isRecord} from '../oci/json.ts';

/** A token with more is refused: a rule could not rely on the names that are left out. */
const MAX_NAMES = 256;
/** What a token says of itself, not of its subject. */
const TECHNICAL: ReadonlySet<string> = new Set(['iss', 'aud', 'exp', 'nbf', 'iat', 'jti', 'sub']);
/** The claim of Kubernetes, whose objects are named by a claim of their own: `namespace`, `serviceaccount`, `pod`. */
const KUBERNETES = 'kubernetes.io';

/** Claims that cannot be turned into names. The message ends a sentence that begins with "the token". */
export class ClaimFault extends Error {
  override readonly name = 'ClaimFault';
}

/**
 * What rules call the subject of a token: `gha:sub=repo:org/app:ref:refs/heads/main` first, then one name for each claim
 * that is a text, a number, true or false, and for each such item of a list: `gha:repository=org/app`. Of
 * `kubernetes.io`, the namespace, and the names of the service account, the pod and the node.
 * @param issuer its name in the configuration
 * @param claims verified, with a `sub`
 * @param wanted the claims that make names; undefined for all but those that are about the token itself
 * @throws ClaimFault when there are more than 256 names, or a value cannot be written exactly
 */
export function namesOf(
  issuer: string,
  claims: Readonly<Record<string, unknown>>,
  wanted: readonly string[] | undefined,
): [string, ...string[]] {
  const all = flattened(claims);
  const keys = Object.keys(all).filter((key) => (wanted ? wanted.includes(key) : !TECHNICAL.has(key)));
  const names = keys.flatMap((key) =>
    valuesOf(all[key]).map((value) => `${issuer}:${key}=${printed(key, value)}`),
  );
  const own = `${issuer}:sub=${printed('sub', claims['sub'] as string)}`;
  const others = new Set(names);
  others.delete(own);
  if (others.size >= MAX_NAMES)
    throw new ClaimFault(
      `has more than ${MAX_NAMES} values of claims: list those that rules need in the setting "claims" of its issuer`,
    );
  return [own, ...others];
}

/**
 * What a token lacks.
 * @param required a pattern for each claim that must have a value; of a list, one item is enough
 * @throws ClaimFault
 */
export function demandClaims(
  claims: Readonly<Record<string, unknown>>,
  required: Readonly<Record<string, string>>,
): void {
  const all = flattened(claims);
  for (const [key, pattern] of Object.entries(required)) {
    const glob = parseCallerGlob(pattern);
    if (
      !valuesOf(Object.hasOwn(all, key) ? all[key] : undefined).some((value) =>
        glob?.matches(printed(key, value)),
      )
    )
      throw new ClaimFault(`does not have the claim ${JSON.stringify(key)} that is required here`);
  }
}

const flattened = (claims: Readonly<Record<string, unknown>>): Record<string, unknown> => ({
  ...claims,
  ...kubernetesClaims(claims[KUBERNETES]),
});

function kubernetesClaims(claim: unknown): Record<string, unknown> {
  if (!isRecord(claim)) return {};
  return Object.fromEntries(
    Object.entries(claim).map(([key, value]) => [key, isRecord(value) ? value['name'] : value]),
  );
}

type Scalar = string | number | boolean;

const isScalar = (value: unknown): value is Scalar => ['string', 'number', 'boolean'].includes(typeof value);

const valuesOf = (value: unknown): Scalar[] => (Array.isArray(value) ? value : [value]).filter(isScalar);

/** Two different values never look the same. @throws ClaimFault */
function printed(key: string, value: Scalar): string {
  if (typeof value === 'number' && Math.abs(value) > Number.MAX_SAFE_INTEGER)
    throw new ClaimFault(`has the claim ${JSON.stringify(key)} with a number that is too large to be exact`);
  const text = String(value);
  if (/\p{Cc}/u.test(key + text))
    throw new ClaimFault(`has the claim ${JSON.stringify(key)} with a control character`);
  return text;
}
