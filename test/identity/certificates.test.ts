import test from 'ava';
import {type CertificateNames, createCertificates} from '../../src/identity/certificates.ts';

const certificate = (names: Partial<CertificateNames>): CertificateNames => ({
  subject: 'O=Example,CN=node-1',
  commonName: 'node-1',
  dnsNames: [],
  emails: [],
  uris: [],
  ...names,
});

test('a certificate names its owner by its alternative names, URIs first, and its common name, each once', (t) => {
  const {identify} = createCertificates(() => []);
  const all = certificate({
    dnsNames: ['node-1', 'node-1.test'],
    emails: ['a@test'],
    uris: ['spiffe://t/ns/a'],
  });
  t.deepEqual(identify(all)?.names, [
    'cert:spiffe://t/ns/a',
    'cert:node-1',
    'cert:node-1.test',
    'cert:a@test',
  ]);
  t.deepEqual(identify(certificate({}))?.names, ['cert:node-1']);
  t.is(identify(certificate({commonName: undefined})), undefined);
});

test('the first setting that matches the subject or an alternative name makes it a user', (t) => {
  const {identify} = createCertificates(() => [
    {san: 'spiffe://t/ns/ci/**', subject: undefined, user: 'ci'},
    {subject: 'O=Example,CN=node-*', san: undefined, user: 'node'},
    {san: '*.test', subject: undefined, user: 'late'},
  ]);
  const node = certificate({dnsNames: ['node-1.test']});
  t.deepEqual(identify(node)?.names, ['user:node', 'cert:node-1.test', 'cert:node-1']);
  t.is(identify(certificate({uris: ['spiffe://t/ns/ci/sa/build']}))?.names[0], 'user:ci');
  const other = certificate({subject: 'O=Other,CN=node-1', dnsNames: ['node-1.test']});
  t.is(identify(other)?.names[0], 'user:late');
  t.is(identify(certificate({subject: 'O=Other,CN=node-1'}))?.names[0], 'cert:node-1');
});

test('a setting for alternative names is not about the common name, nor the other way round', (t) => {
  const {identify} = createCertificates(() => [
    {san: 'node-1', subject: undefined, user: 'by-san'},
    {subject: '*.test', san: undefined, user: 'by-subject'},
  ]);
  t.deepEqual(identify(certificate({dnsNames: ['a.test']}))?.names, ['cert:a.test', 'cert:node-1']);
});

test('names with control characters are left out', (t) => {
  const {identify} = createCertificates(() => [{subject: '**', san: undefined, user: 'all'}]);
  const crafted = {subject: 'CN=a\nb', commonName: 'a\nb', dnsNames: ['c\u0000d']};
  t.is(identify(certificate(crafted)), undefined);
  t.deepEqual(identify(certificate({...crafted, emails: ['e@test']}))?.names, ['cert:e@test']);
});

test('what was issued for a certificate ends when the settings of certificates change, and only then', (t) => {
  const node = {san: 'node-*', subject: undefined, user: 'node'};
  let mappings = [node];
  const certificates = createCertificates(() => mappings);
  const owner = certificates.identify(certificate({dnsNames: ['node-1']}));
  if (!owner) return t.fail();
  const id = owner.source?.id ?? '';
  mappings = [{...node}];
  t.is(certificates.recall?.(owner, id), owner);
  mappings = [];
  t.is(certificates.recall?.(owner, id), undefined);
});
