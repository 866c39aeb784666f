import test from 'ava';
import {createScriptedUpstream} from '../../support/scripted-upstream.ts';
import {caller, createClient, failureOf, repository} from '../../support/upstream.ts';

const FIRST = 'GET /v2/team/app/tags/list?n=1000';
const page = (tags: string[] | null, link?: string) => ({
  body: JSON.stringify({name: 'team/app', tags}),
  headers: link === undefined ? {} : {link},
});

test("all pages are read, in the upstream's order", async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: FIRST, answer: page(['b', 'a'], '</v2/team/app/tags/list?n=1000&last=a>; rel="next"')},
    {request: `${FIRST}&last=a`, answer: page(['c'], '<?page=3>; rel=next')},
    {request: 'GET /v2/team/app/tags/list?page=3', answer: page(['d'])},
  ]);
  const {client} = createClient(t, upstream.url);
  t.deepEqual(await client.listTags(repository, caller), ['b', 'a', 'c', 'd']);
});

test('null is an empty list, and 404 means that there is no repository', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: FIRST, answer: page(null)},
    {request: FIRST, answer: {status: 404}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.deepEqual(await client.listTags(repository, caller), []);
  t.is(await client.listTags(repository, caller), undefined);
});

for (const status of [404, 500, 403]) {
  test(`a later page that is ${status} makes the whole list a failure`, async (t) => {
    const upstream = await createScriptedUpstream(t, [
      {request: FIRST, answer: page(['a'], '<?page=2>; rel=next')},
      {request: 'GET /v2/team/app/tags/list?page=2', answer: {status}, always: true},
    ]);
    const {client} = createClient(t, upstream.url);
    await failureOf(client.listTags(repository, caller));
    t.pass();
  });
}

test('a page that is not a tag list is a protocol failure', async (t) => {
  const bodies = ['<html>', '[]', '{}', '{"errors":[]}', '{"tags":[1]}', '{"tags":"a"}'];
  const upstream = await createScriptedUpstream(
    t,
    bodies.map((body) => ({request: FIRST, answer: {body}, times: 4})),
  );
  const {client} = createClient(t, upstream.url);
  for (const body of bodies)
    t.is((await failureOf(client.listTags(repository, caller))).kind, 'protocol', body);
});

test('a page that links to itself is a protocol failure', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: FIRST, answer: page(['a'], '</v2/team/app/tags/list?n=1000>; rel="next"')},
  ]);
  const {client} = createClient(t, upstream.url);
  t.is((await failureOf(client.listTags(repository, caller))).kind, 'protocol');
});

test('an unreadable Link is a protocol failure, and not the end of the list', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: FIRST, answer: page(['a'], '/v2/team/app/tags/list?last=a; rel=next')},
  ]);
  const {client} = createClient(t, upstream.url);
  const failure = await failureOf(client.listTags(repository, caller));
  t.is(failure.kind, 'protocol');
  t.regex(failure.message, /Link field that cannot be parsed: \/v2\/team/);
});

test('a link to another host is not followed', async (t) => {
  const elsewhere = await createScriptedUpstream(t);
  const upstream = await createScriptedUpstream(t, [
    {request: FIRST, answer: page(['a'], `<${elsewhere.url}/v2/team/app/tags/list>; rel="next"`)},
  ]);
  const {client} = createClient(t, upstream.url);
  t.is((await failureOf(client.listTags(repository, caller))).kind, 'protocol');
});

test('after a redirect, links are relative to the host that answered', async (t) => {
  const elsewhere = await createScriptedUpstream(t, [
    {request: 'GET /moved?x=1', answer: page(['a'], '</moved?x=2>; rel="next"')},
    {request: 'GET /moved?x=2', sends: {authorization: undefined}, answer: page(['b'])},
  ]);
  const upstream = await createScriptedUpstream(t, [
    {request: FIRST, answer: {status: 307, headers: {location: `${elsewhere.url}/moved?x=1`}}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.deepEqual(await client.listTags(repository, caller), ['a', 'b']);
});

test('a list whose pages together are too large is a protocol failure, however many there are', async (t) => {
  let count = 0;
  const padding = 'x'.repeat(15 * 1024 * 1024);
  const upstream = await createScriptedUpstream(t, [
    {
      request: /^GET \/v2\/team\/app\/tags\/list\?/,
      answer: () => {
        count += 1;
        const headers = count < 8 ? {link: `<?page=${count}>; rel="next"`} : {};
        return {body: `{"name":"${padding}","tags":["${count}"]}`, headers};
      },
      always: true,
    },
  ]);
  const {client} = createClient(t, upstream.url);
  const failure = await failureOf(client.listTags(repository, caller));
  t.is(failure.kind, 'protocol');
  t.regex(failure.message, /its tag list is larger than 67108864 bytes in all/);
  t.is(count, 5);
});
