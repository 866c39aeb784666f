/** Secrets, each with its replacement. */
const SECRETS: readonly [pattern: RegExp, replacement: string][] = [
  [/\b(Bearer|Basic)\s+[\w.~+/=-]+/gi, '$1 [redacted]'],
  [/\/\/[^\s/@]+@/g, '//[redacted]@'],
  [
    /([?&](?:token|access_token|sig|signature|x-amz-signature|x-amz-credential|x-amz-security-token)=)[^&\s"]*/gi,
    '$1[redacted]',
  ],
];

/** Removes credentials from a text before it is logged: those in headers, in URLs and in signed links. */
export const scrub = (text: string): string =>
  SECRETS.reduce((result, [pattern, replacement]) => result.replace(pattern, replacement), text);

/**
 * An error for the log: its stack, then its causes. Never its properties: an HTTP client's errors hold the request
 * with its headers.
 */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const text = error.stack ?? `${error.name}: ${error.message}`;
  return error.cause === undefined ? text : `${text}\ncaused by ${describeError(error.cause)}`;
}
