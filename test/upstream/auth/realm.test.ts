import test from 'ava';
import {refusedRealm} from '../../../src/upstream/auth/challenge.ts';

const judge = (realm: string, upstream: string, realmHosts: string[] = [], insecure = false) =>
  refusedRealm(new URL(realm), new URL(upstream), {realmHosts, insecure});

test("a token service on the upstream's host or registrable domain is trusted", (t) => {
  t.is(judge('https://auth.docker.io/token', 'https://registry-1.docker.io'), undefined);
  t.is(judge('https://ghcr.io/token', 'https://ghcr.io'), undefined);
  t.is(judge('https://gitlab.com/jwt/auth', 'https://registry.gitlab.com'), undefined);
  t.is(judge('https://registry.local:8443/token', 'https://registry.local:5000'), undefined);
});

test('a token service on another domain is refused, and the reason names the setting', (t) => {
  t.regex(
    judge('https://auth.evil.example/token', 'https://registry-1.docker.io') ?? '',
    /auth\.evil\.example.*upstream\.realmHosts/,
  );
  t.truthy(judge('https://docker.io.evil.example/token', 'https://registry-1.docker.io'));
});

test('domains that are open to anyone do not count as shared', (t) => {
  t.truthy(judge('https://mallory.github.io/token', 'https://alice.github.io'));
  t.truthy(judge('https://b.co.uk/token', 'https://a.co.uk'));
});

test('addresses and localhost must be equal', (t) => {
  t.is(judge('https://10.0.0.1:8443/token', 'https://10.0.0.1'), undefined);
  t.truthy(judge('https://10.0.0.2/token', 'https://10.0.0.1'));
  t.truthy(judge('https://localhost/token', 'https://127.0.0.1'));
  t.is(judge('https://[::1]/token', 'https://[::1]:5000'), undefined);
});

test('a listed host is trusted, with or without its port', (t) => {
  t.is(judge('https://sso.example/token', 'https://registry.test', ['sso.example']), undefined);
  t.is(judge('https://sso.example:8443/token', 'https://registry.test', ['sso.example:8443']), undefined);
  t.truthy(judge('https://sso.example:9/token', 'https://registry.test', ['sso.example:8443']));
});

test('plain http is allowed only for insecure upstreams', (t) => {
  t.regex(judge('http://auth.docker.io/token', 'https://registry-1.docker.io') ?? '', /insecure: true/);
  t.is(judge('http://127.0.0.1:9/token', 'http://127.0.0.1:5000', [], true), undefined);
  t.truthy(judge('ftp://127.0.0.1/token', 'http://127.0.0.1:5000', [], true));
});
