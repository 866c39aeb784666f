import {request} from 'node:https';
import type {ConnectionOptions} from 'node:tls';
import test, {type ExecutionContext} from 'ava';
import type {Config} from '../../src/config.ts';
import {startBackref} from '../support/backref.ts';
import {AUTHORITY, CLIENT_TLS, OTHER_AUTHORITY} from '../support/certificates.ts';
import {createSigningKey, issuerConfig, signToken, startIssuer} from '../support/issuer.ts';
import {writeTls} from '../support/tls-files.ts';

interface Asked {
  path?: string;
  authorization?: string;
}

/** A server whose listener asks for client certificates, and what a client with one gets, or without. */
async function start(t: ExecutionContext, access: Partial<Config['access']>) {
  const {paths} = await writeTls(t, {clientCa: OTHER_AUTHORITY});
  const proxy = await startBackref(t, {registries: [{}], listener: {tls: paths}, config: {access}});
  const ask = ({path = '/v2/app/tags/list', authorization}: Asked, client: ConnectionOptions) =>
    new Promise<{status: number | undefined; body: string}>((resolve, reject) => {
      const headers = authorization === undefined ? {} : {authorization};
      const options = {
        host: '127.0.0.1',
        port: proxy.port,
        path,
        headers,
        agent: false,
        ca: AUTHORITY,
        ...client,
      };
      const asked = request(options, async (response) => {
        const body = Buffer.concat(await response.toArray()).toString();
        resolve({status: response.statusCode, body});
      });
      asked.once('error', reject).end();
    });
  return {proxy, ask};
}

const rulesFor = (who: string): Config['access']['rules'] => [
  {who: [who], where: ['docker.io/**'], may: ['pull']},
];

/** Allowed, a list of tags is 404, because nothing was pushed. */
test('who presents a certificate needs no login, and rules name the names in it', async (t) => {
  const {ask} = await start(t, {rules: rulesFor('cert:ci')});
  t.is((await ask({}, CLIENT_TLS)).status, 404);
  t.is((await ask({path: '/v2/'}, CLIENT_TLS)).status, 200);
  t.is((await ask({}, {})).status, 403, 'nobody could log in');
});

test('a certificate belongs to a user by its subject', async (t) => {
  const certificates = [{subject: 'O=Example,CN=c?', san: undefined, user: 'builder'}];
  const {ask} = await start(t, {rules: rulesFor('user:builder'), certificates});
  t.is((await ask({}, CLIENT_TLS)).status, 404);
});

test('a certificate that no rule names is denied', async (t) => {
  const {ask} = await start(t, {rules: rulesFor('cert:other')});
  const {status, body} = await ask({}, CLIENT_TLS);
  t.is(status, 403);
  t.regex(body, /DENIED/);
});

test('a credential counts instead of the certificate, also a wrong one', async (t) => {
  const key = await createSigningKey('one');
  const issuer = await startIssuer(t);
  issuer.answerKeys({keys: [key.jwk]});
  const {proxy, ask} = await start(t, {rules: rulesFor('cert:ci'), issuers: [issuerConfig(issuer.url)]});
  const now = proxy.clock.now() / 1000;
  const bearer = async (exp: number) =>
    `Bearer ${await signToken(key, issuer.url, {iat: now, nbf: now, exp: now + exp})}`;
  t.is((await ask({}, CLIENT_TLS)).status, 404);
  t.is((await ask({authorization: await bearer(60)}, CLIENT_TLS)).status, 403);
  t.is((await ask({authorization: await bearer(-60)}, CLIENT_TLS)).status, 401);
  t.is((await ask({authorization: 'Basic YTpi'}, CLIENT_TLS)).status, 401);
  t.is((await ask({}, {})).status, 401, 'somebody could log in');
});
