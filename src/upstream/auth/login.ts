/** What we show an upstream or its token service. */
export type Login =
  | {kind: 'basic'; username: string; password: string}
  /** A refresh token for the token service, as `docker login` keeps it. */
  | {kind: 'identity-token'; token: string};

/** The `Authorization` value of Basic credentials (RFC 7617, section 2). */
export const basicAuthorization = ({username, password}: {username: string; password: string}): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
