import {createServer as createHttpServer, type IncomingMessage, type ServerResponse} from 'node:http';
import {createServer as createHttpsServer} from 'node:https';
import type {AddressInfo} from 'node:net';
import {exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT} from 'jose';
import type {IssuerConfig} from '../../src/config.ts';
import {SERVER_TLS} from './certificates.ts';
import type {Lifetime} from './shared.ts';

/** What the issuers of tests sign with, and the wall clock of their tests. */
export const NOW = Date.UTC(2030, 0, 1);

export interface SigningKey {
  kid: string;
  alg: string;
  privateKey: Parameters<SignJWT['sign']>[0];
  /** As the issuer lists it. */
  jwk: JWK;
}

export async function createSigningKey(kid: string, alg = 'ES256'): Promise<SigningKey> {
  const {privateKey, publicKey} = await generateKeyPair(alg, {extractable: true});
  return {kid, alg, privateKey, jwk: {...(await exportJWK(publicKey)), kid, alg, use: 'sig'}};
}

/** A token that lives for ten minutes. @param changes claims, of which those that are undefined are left out */
export function signToken(key: SigningKey, iss: string, changes: JWTPayload = {}): Promise<string> {
  const now = NOW / 1000;
  const claims = {iss, sub: 'repo:org/app', aud: 'backref', iat: now, nbf: now, exp: now + 600, ...changes};
  return new SignJWT(claims).setProtectedHeader({alg: key.alg, kid: key.kid}).sign(key.privateKey);
}

export interface LocalIssuer {
  /** Its `iss`. */
  url: string;
  /** The paths that were asked for. */
  asked: string[];
  /** Answers `/keys` from now on. A function writes the response itself, or never does. */
  answerKeys(answer: object | ((request: IncomingMessage, response: ServerResponse) => void)): void;
  /** Answers the discovery from now on. */
  answerDiscovery(document: object): void;
}

/** An issuer on this machine, over HTTP or HTTPS, that ends with the test. */
export async function startIssuer(t: Lifetime, {tls = false} = {}): Promise<LocalIssuer> {
  const asked: string[] = [];
  const write = (response: ServerResponse, body: object) => void response.end(JSON.stringify(body));
  let keys: Parameters<LocalIssuer['answerKeys']>[0] = {keys: []};
  let discovery: object;
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    asked.push(request.url ?? '');
    if (request.url === '/.well-known/openid-configuration') write(response, discovery);
    else if (typeof keys === 'function') keys(request, response);
    else write(response, keys);
  };
  const server = tls ? createHttpsServer(SERVER_TLS, listener) : createHttpServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  const url = `${tls ? 'https' : 'http'}://localhost:${(server.address() as AddressInfo).port}`;
  discovery = {issuer: url, jwks_uri: `${url}/keys`};
  return {
    url,
    asked,
    answerKeys: (answer) => {
      keys = answer;
    },
    answerDiscovery: (document) => {
      discovery = document;
    },
  };
}

/** The settings of an issuer, with a test's changes. */
export const issuerConfig = (issuer: string, changes: Partial<IssuerConfig> = {}): IssuerConfig => ({
  name: 'gha',
  issuer,
  audience: ['backref'],
  jwks: undefined,
  algorithms: ['RS256', 'ES256'],
  require: {},
  claims: undefined,
  maxAge: undefined,
  insecure: false,
  ca: [],
  ...changes,
});
