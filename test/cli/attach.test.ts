import {mkdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {indexReferrers, listReferrers} from '../../src/index.ts';
import {call} from '../support/command.ts';
import {imageManifest, sha256} from '../support/content.ts';
import {createFolder} from '../support/folder.ts';
import {createLayout} from '../support/layout.ts';
import {startLegacy} from '../support/legacy.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';

const TYPE = ['--artifact-type', 'application/x.sbom'];

/** A folder with two files, which is also the home of the commands. */
async function createHome(t: ExecutionContext) {
  const home = await createFolder(t);
  const [a, b] = [join(home, 'a.json'), join(home, 'b.txt')];
  await writeFile(a, '{"a":1}');
  await writeFile(b, 'b');
  const run = (...args: string[]) => call(['attach', ...args], {HOME: home});
  return {home, a, b, run};
}

test('files become layers of one artifact, whose digest is printed', async (t) => {
  const image = imageManifest();
  const legacy = await startLegacy(t, image);
  const {a, b, run} = await createHome(t);
  const {code, stdout, stderr} = await run(
    ...[`${legacy.host}/team/app:1`, a, b, ...TYPE, '--media-type', 'text/plain'],
    ...['--annotation', 'org.example.a=x=y', '-a', 'org.example.b=', '--plain-http'],
  );
  t.is(stderr, '');
  t.is(code, 0);
  t.regex(stdout, /^sha256:[a-f0-9]{64}\n$/);
  const manifest = JSON.parse(String((await legacy.get(stdout.trim()))?.bytes));
  t.is(manifest.artifactType, 'application/x.sbom');
  t.is(manifest.subject.digest, image.digest);
  t.deepEqual(manifest.layers, [
    {
      mediaType: 'text/plain',
      digest: sha256(Buffer.from('{"a":1}')),
      size: 7,
      annotations: {'org.opencontainers.image.title': 'a.json'},
    },
    {
      mediaType: 'text/plain',
      digest: sha256(Buffer.from('b')),
      size: 1,
      annotations: {'org.opencontainers.image.title': 'b.txt'},
    },
  ]);
  t.like(manifest.annotations, {'org.example.a': 'x=y', 'org.example.b': ''});
  t.false(Number.isNaN(Date.parse(manifest.annotations['org.opencontainers.image.created'])));
  t.like(await listReferrers(legacy.target, '1', {plainHttp: true}), {manifests: [{digest: stdout.trim()}]});
});

test('attaches to an image layout in the same way, by tag and by digest', async (t) => {
  const image = imageManifest();
  const folder = await createLayout(t, {'1': image});
  const {a, b, run} = await createHome(t);
  t.is((await run(`oci:${folder}:1`, a, ...TYPE)).code, 0);
  t.is((await run(`oci:${folder}@${image.digest}`, b, ...TYPE)).code, 0);
  t.is((await indexReferrers(`oci:${folder}`, image.digest)).manifests.length, 2);
});

test('the credentials of docker login are sent to the registry, without credential helpers', async (t) => {
  const basic = `Basic ${Buffer.from('u:p').toString('base64')}`;
  const upstream = await createScriptedUpstream(t, [
    {
      request: 'GET /v2/team/app/manifests/1',
      sends: {authorization: undefined},
      answer: {status: 401, headers: {'www-authenticate': 'Basic realm="r"'}},
    },
    {request: 'GET /v2/team/app/manifests/1', sends: {authorization: basic}, answer: {status: 404}},
  ]);
  const {home, a, run} = await createHome(t);
  await mkdir(join(home, '.docker'));
  const auths = {[upstream.host]: {auth: Buffer.from('u:p').toString('base64')}};
  await writeFile(join(home, '.docker/config.json'), JSON.stringify({auths}));
  const {code, stderr} = await run(`${upstream.host}/team/app:1`, a, ...TYPE, '--plain-http');
  t.is(code, 1);
  t.is(stderr, `${upstream.host}/team/app has no manifest 1 to attach to.\n`);
});

test('a failure ends with 1 and says what to do', async (t) => {
  const legacy = await startLegacy(t, imageManifest());
  const {home, a, run} = await createHome(t);
  const failures: Record<string, {args: string[]; says: RegExp}> = {
    'a file that is not there': {
      args: [`${legacy.host}/team/app:1`, 'none.json', '--plain-http'],
      says: /^The file none\.json cannot be read \(ENOENT\)\.\n$/,
    },
    'a folder': {args: [`${legacy.host}/team/app:1`, home, '--plain-http'], says: /is not a file/},
    'no TLS': {
      args: [`${legacy.host}/team/app:1`, a, '--no-plain-http'],
      says: /With this command, use --plain-http\.\n$/,
    },
    'no layout': {args: [`oci:${home}:1`, a], says: /is not an OCI image layout/},
    'no such tag': {args: [`${legacy.host}/team/app:2`, a, '--plain-http'], says: /has no manifest 2/},
  };
  for (const [what, {args, says}] of Object.entries(failures)) {
    const {code, stdout, stderr} = await run(...args, ...TYPE);
    t.is(code, 1, what);
    t.is(stdout, '', what);
    t.regex(stderr, says, what);
    t.notRegex(stderr, /\n {4}at /, what);
  }
});

test('wrong arguments end with 2 and say what is allowed', async (t) => {
  const {a, run} = await createHome(t);
  const REFERENCE = 'r.test/a:1';
  const misuses: Record<string, string[]> = {
    'no artifact type': [REFERENCE, a],
    'an empty artifact type': [REFERENCE, a, '--artifact-type', ''],
    'no file': [REFERENCE, ...TYPE],
    'an annotation without a value': [REFERENCE, a, ...TYPE, '-a', 'x'],
    'no tag': ['r.test/a', a, ...TYPE],
    'no registry': ['team/app:1', a, ...TYPE],
    'a host alone': ['r.test:5000', a, ...TYPE],
    'a layout without a tag': ['oci:folder', a, ...TYPE],
  };
  for (const [what, args] of Object.entries(misuses)) {
    const {code, stderr} = await run(...args);
    t.is(code, 2, what);
    t.not(stderr, '', what);
  }
});
