/** What must never reach a log, with what stands there instead. */
const SECRETS: readonly [pattern: RegExp, replacement: string][] = [
  [/\b(Bearer|Basic)\s+[\w.~+/=-]+/gi, '$1 [redacted]'],
  [/\/\/[^\s/@]+@/g, '//[redacted]@'],
  [
    /([?&](?:token|access_token|sig|signature|x-amz-signature|x-amz-credential|x-amz-security-token)=)[^&\s"]*/gi,
    '$1[redacted]',
  ],
];

/** Takes any text that is about to be logged, and cuts credentials out of it: of headers, of URLs, of signed links. */
export const scrub = (text: string): string =>
  SECRETS.reduce((result, [pattern, replacement]) => result.replace(pattern, replacement), text);

/**
 * An error for the log: its stack and its causes' messages. Never its properties, since those of an HTTP client's
 * errors hold the request with its headers.
 */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const text = error.stack ?? `${error.name}: ${error.message}`;
  return error.cause === undefined ? text : `${text}\ncaused by ${describeError(error.cause)}`;
}
