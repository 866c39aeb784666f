import test, {type ExecutionContext} from 'ava';
import type {Identity} from '../../src/identity/authenticator.ts';
import {fallbackTag} from '../../src/oci/referrers.ts';
import {
  attachmentTo,
  contentOf,
  type ManifestContent,
  plainManifest,
  randomBlob,
} from '../support/content.ts';
import {type RuledServer, startRuledServer} from './ruled-server.ts';

const ROOT: Identity = {names: ['user:root']};
const SIGNER: Identity = {names: ['user:signer']};
const PUSHER: Identity = {names: ['user:pusher']};

const RULES = [
  {who: ['user:root'], where: ['**'], may: ['pull' as const, 'push' as const, 'delete' as const]},
  {who: ['user:signer'], where: ['*/app'], may: ['pull' as const, 'attach' as const]},
  {who: ['user:pusher'], where: ['*/app:nightly-*'], may: ['pull' as const, 'push' as const]},
];

const image = plainManifest();
const EMPTY = contentOf(Buffer.from('{}'));

const attachment = (): ManifestContent => attachmentTo(image, {nonce: randomBlob(8).digest});

/** A hosted registry that keeps two referrers of a type, with the blob of attachments. */
async function start(t: ExecutionContext) {
  const registries = [{library: false, referrers: {keep: 2}}];
  const server = await startRuledServer(t, {access: {rules: RULES}, registries});
  const path = `/v2/app/blobs/uploads/?digest=${EMPTY.digest}`;
  t.is((await server.send(ROOT, {method: 'POST', path, body: EMPTY.bytes})).status, 201);
  return {
    async attach(who: Identity, one: ManifestContent, ...tags: string[]): Promise<void> {
      for (const reference of tags.length > 0 ? tags : [one.digest])
        await put(t, server, who, one, reference);
    },
    async left(): Promise<string[]> {
      const {body} = await server.send(ROOT, {path: `/v2/app/referrers/${image.digest}`});
      return JSON.parse(body.toString()).manifests.map(({digest}: {digest: string}) => digest);
    },
    tag: async (name: string) => (await server.send(ROOT, {path: `/v2/app/manifests/${name}`})).status,
  };
}

async function put(
  t: ExecutionContext,
  {send}: RuledServer,
  who: Identity,
  {bytes, mediaType}: ManifestContent,
  reference: string,
): Promise<void> {
  const path = `/v2/app/manifests/${reference}`;
  const got = await send(who, {method: 'PUT', path, headers: {'content-type': mediaType}, body: bytes});
  t.is(got.status, 201, got.body.toString());
}

test('who may only attach displaces the oldest referrers without a tag, and none that a tag names', async (t) => {
  const {attach, left, tag} = await start(t);
  const [released, old, one, two, three] = [
    attachment(),
    attachment(),
    attachment(),
    attachment(),
    attachment(),
  ];
  await attach(ROOT, released, 'v1-sbom');
  await attach(ROOT, old);
  await attach(SIGNER, one);
  t.deepEqual(await left(), [released.digest, one.digest]);
  await attach(ROOT, one, 'v2-sbom');
  await attach(SIGNER, two);
  t.deepEqual(await left(), [released.digest, one.digest, two.digest], 'nothing may go');
  await attach(SIGNER, three);
  t.deepEqual(await left(), [released.digest, one.digest, three.digest]);
  t.is(await tag('v1-sbom'), 200);
});

test('tags of the subject, which it may set anyway, and those that it may push, keep nothing', async (t) => {
  const {attach, left} = await start(t);
  const [signature, nightly, one, two, three] = [
    attachment(),
    attachment(),
    attachment(),
    attachment(),
    attachment(),
  ];
  await attach(SIGNER, signature, `${fallbackTag(image.digest)}.sig`);
  await attach(PUSHER, nightly, 'nightly-1');
  await attach(SIGNER, one);
  t.deepEqual(await left(), [nightly.digest, one.digest]);
  await attach(SIGNER, two);
  t.deepEqual(await left(), [nightly.digest, two.digest]);
  await attach(PUSHER, three, 'nightly-2');
  t.deepEqual(await left(), [two.digest, three.digest]);
});

test('who may delete displaces the oldest referrers, tagged or not', async (t) => {
  const {attach, left, tag} = await start(t);
  const [released, one, two] = [attachment(), attachment(), attachment()];
  await attach(ROOT, released, 'v1-sbom');
  await attach(ROOT, one);
  await attach(ROOT, two);
  t.deepEqual(await left(), [one.digest, two.digest]);
  t.is(await tag('v1-sbom'), 404);
});
