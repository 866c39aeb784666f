import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {cp, readFile, writeFile} from 'node:fs/promises';
import {join, resolve} from 'node:path';
import {text} from 'node:stream/consumers';
import {pathToFileURL} from 'node:url';
import test from 'ava';
import ts from 'typescript';
import {ownPort} from '../../rig/port.ts';
import {COMPILED} from '../support/command.ts';
import {plainManifest} from '../support/content.ts';
import {createFolder} from '../support/folder.ts';
import {createLayout} from '../support/layout.ts';

const PROJECT = resolve(import.meta.dirname, '../..');
const ENTRY = join(PROJECT, 'src/index.ts');

/** The TypeScript examples of a page, by the heading above each. */
async function examplesOf(page: string): Promise<Record<string, string>> {
  const markdown = await readFile(join(PROJECT, page), 'utf8');
  const sections = markdown.split(/^## /m).map((section) => ({
    title: section.split('\n')[0] ?? '',
    code: section.match(/^```ts\n(.*?)^```$/ms)?.[1],
  }));
  return Object.fromEntries(sections.flatMap(({title, code}) => (code === undefined ? [] : [[title, code]])));
}

const examples = await examplesOf('docs/library.md');

test('every example of the library page compiles', async (t) => {
  const folder = await createFolder(t);
  const files = await Promise.all(
    Object.values(examples).map(async (code, index) => {
      const file = join(folder, `example-${index}.mts`);
      await writeFile(file, code);
      return file;
    }),
  );
  const {options} = ts.parseJsonConfigFileContent(
    ts.readConfigFile(join(PROJECT, 'tsconfig.json'), ts.sys.readFile).config,
    ts.sys,
    PROJECT,
  );
  const program = ts.createProgram(files, {
    ...options,
    typeRoots: [join(PROJECT, 'node_modules/@types')],
    paths: {backref: [ENTRY]},
  });
  // The sources that the examples import are checked by `npm run types`.
  const diagnostics = files.flatMap((file) => ts.getPreEmitDiagnostics(program, program.getSourceFile(file)));
  const faults = diagnostics.map(({file, messageText}) => ({
    file: file?.fileName,
    message: ts.flattenDiagnosticMessageText(messageText, '\n'),
  }));
  t.deepEqual(faults, []);
  t.deepEqual(Object.keys(examples), [
    'Serve',
    'Attach',
    'List',
    'Work on a layout',
    'Work on a data folder',
  ]);
});

test('every example of the library page does what the page says', async (t) => {
  const folder = await createFolder(t);
  const image = plainManifest();
  await cp(await createLayout(t, {'1': image}), join(folder, 'layout'), {recursive: true});
  await writeFile(join(folder, 'sbom.json'), '{"spdxVersion": "SPDX-2.3"}');
  const host = `127.0.0.1:${await ownPort()}`;
  await writeFile(join(folder, 'backref.yaml'), settingsFor(host));
  const start = async (title: string) => {
    const file = join(folder, `${title.replaceAll(' ', '-')}.mts`);
    const code = (examples[title] ?? '')
      .replace("'backref'", `'${pathToFileURL(ENTRY)}'`)
      .replace('localhost:5000', host);
    await writeFile(file, code);
    const env = {...process.env, ...COMPILED, SUBJECT: image.digest};
    const child = spawn(process.execPath, [file], {cwd: folder, env, stdio: ['ignore', 'pipe', 'inherit']});
    t.teardown(() => child.kill('SIGKILL'));
    return child;
  };
  const outputOf = async (title: string) => {
    const child = await start(title);
    const [output, [code]] = await Promise.all([text(child.stdout), once(child, 'close')]);
    t.is(code, 0, title);
    return output.trim();
  };

  const server = await start('Serve');
  const [line] = await once(server.stdout, 'data');
  t.is(String(line).trim(), `http://${host}`);
  await putImage(`http://${host}/v2/team/app/manifests/1`, image);

  const attached = await outputOf('Attach');
  t.is(await outputOf('List'), attached);
  t.is(await outputOf('Work on a layout'), '1 1');
  t.is(await outputOf('Work on a data folder'), '2');

  server.kill('SIGTERM');
  t.deepEqual(await once(server, 'close'), [0, null]);
});

const settingsFor = (host: string): string => `
listen: {host: 127.0.0.1, port: ${host.split(':')[1]}}
storage: {blobs: {path: data}, metadata: {path: data/meta.db}}
registries: {apps.local: {default: true, push: local}}
`;

async function putImage(url: string, {bytes, mediaType}: {bytes: Buffer; mediaType: string}): Promise<void> {
  const answer = await fetch(url, {method: 'PUT', body: bytes, headers: {'content-type': mediaType}});
  if (answer.status !== 201) throw new Error(`PUT ${url}: ${answer.status} ${await answer.text()}`);
}
