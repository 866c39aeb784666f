import {type ChildProcess, spawn} from 'node:child_process';
import {once} from 'node:events';
import {access, cp, mkdir, readdir, readFile, stat} from 'node:fs/promises';
import {basename, dirname, join, resolve} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {parse} from 'yaml';
import {NODE_FLAGS} from '../rig/backref.ts';
import {cleanEnvironment} from '../rig/npm.ts';
import {ownPort} from '../rig/port.ts';
import {loadConfig} from '../src/config/load.ts';
import {parseDuration} from '../src/config/units.ts';
import {execOf, parseDockerfile, type Stage, textsOf} from './support/dockerfile.ts';
import {createFolder} from './support/folder.ts';

const PROJECT = resolve(import.meta.dirname, '..');
/** The folder of Node 24, as in the base image. */
const NODE = dirname(process.execPath);

const shell = async (command: string, cwd: string, env: Record<string, string>) => {
  const child = spawn('sh', ['-c', command], {cwd, env, stdio: ['ignore', 'pipe', 'pipe']});
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
  const [code] = await once(child, 'close');
  return {code, output};
};

/** Takes the steps of a Dockerfile with a folder for the root of each stage. */
class Build {
  readonly #root: string;
  readonly #env = cleanEnvironment(NODE);
  readonly #places = new Map<string, string>();

  constructor(root: string) {
    this.#root = root;
  }

  /** The root folder of a stage. */
  place(stage: Stage): string {
    return join(this.#root, stage.name ?? 'final');
  }

  async run(t: ExecutionContext, stage: Stage): Promise<void> {
    const root = this.place(stage);
    if (stage.name) this.#places.set(stage.name, root);
    let cwd = root;
    for (const {name, text} of stage.instructions) {
      if (name === 'WORKDIR') {
        cwd = join(root, text);
        await mkdir(cwd, {recursive: true});
      } else if (name === 'COPY') await this.#copy(text, cwd);
      else if (name === 'RUN') {
        const {code, output} = await shell(this.#outside(text, root), cwd, this.#env);
        t.is(code, 0, `RUN ${text}: ${output}`);
      }
    }
  }

  async #copy(text: string, cwd: string): Promise<void> {
    const [, from] = /^--from=(\S+)/.exec(text) ?? [];
    const names = text.split(/\s+/).filter((word) => !word.startsWith('--'));
    const target = join(cwd, names.pop() ?? '');
    const base = from ? (this.#places.get(from) ?? '') : PROJECT;
    for (const name of names) {
      const intoFolder = names.length > 1 || target.endsWith('/');
      const to = intoFolder ? join(target, basename(name)) : target;
      await cp(join(base, name), to, {recursive: true, verbatimSymlinks: true});
    }
  }

  /** A command with the image's absolute paths and users replaced by those of this machine. */
  #outside(command: string, root: string): string {
    const self = `${process.getuid?.()}:${process.getgid?.()}`;
    return command.replaceAll(/(?<=\s)\/(?=\w)/g, `${root}/`).replaceAll('1000:1000', self);
  }
}

/** Resolves with what was printed as soon as it matches. */
async function prints(child: ChildProcess, pattern: RegExp): Promise<string> {
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream?.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (pattern.test(output)) child.emit('printed');
    });
  const ended = once(child, 'close').then(() => Promise.reject(new Error(`ended early: ${output}`)));
  ended.catch(() => {});
  await Promise.race([once(child, 'printed'), ended]);
  return output;
}

const readStages = async (): Promise<[Stage, Stage]> => {
  const [build, final, ...others] = parseDockerfile(await readFile(join(PROJECT, 'Dockerfile'), 'utf8'));
  if (!build || !final || others.length > 0) throw new Error('the Dockerfile is expected to have two stages');
  return [build, final];
};

test('the steps of the Dockerfile give an installation that serves, is healthy and stops', async (t) => {
  const root = await createFolder(t);
  const [first, final] = await readStages();
  const build = new Build(root);
  await build.run(t, first);
  await build.run(t, final);

  const app = join(build.place(final), textsOf(final, 'WORKDIR').at(-1) ?? '');
  const installed = (await readdir(join(app, 'node_modules'), {recursive: true})).filter((path) =>
    /^(?:@[^/]+\/)?[^/]+\/package\.json$/.test(path),
  );
  t.true(installed.length > 0);
  t.deepEqual(
    installed.filter((path) => !path.startsWith('@node-rs/')),
    [],
    'everything else is in the bundle',
  );
  const licences = await readFile(join(app, 'dist/LICENCES.txt'), 'utf8');
  for (const name of ['koa', 'kysely', '@sindresorhus/is'])
    t.regex(
      licences,
      new RegExp(`^${name} \\S+ \\(MIT\\)\n-+\n\n.*Permission is hereby granted`, 'ms'),
      name,
    );
  for (const path of Object.values(
    JSON.parse(await readFile(join(app, 'package.json'), 'utf8')).exports['.'],
  ))
    await t.notThrowsAsync(access(join(app, String(path))), String(path));

  const data = join(build.place(final), textsOf(final, 'VOLUME').at(-1) ?? '');
  const port = await ownPort();
  const settings = textsOf(final, 'ENV').map((text) => text.split('=', 2) as [string, string]);
  const env = {
    ...cleanEnvironment(NODE),
    ...Object.fromEntries(settings.map(([name, value]) => [name, value.replace(/^\/data/, data)])),
    BACKREF_LISTEN_HOST: '127.0.0.1',
    BACKREF_LISTEN_PORT: String(port),
  };
  const [node = '', ...entry] = execOf(final, 'ENTRYPOINT');
  const server = spawn(node, [...entry, ...execOf(final, 'CMD')], {cwd: app, env});
  const ended = once(server, 'close');
  t.teardown(() => server.kill('SIGKILL'));
  const health = () => shell(execOf(final, 'HEALTHCHECK').join(' '), app, env);

  await prints(server, /server\.listening/);
  t.is((await fetch(`http://127.0.0.1:${port}/v2/`)).status, 200);
  t.deepEqual(await health(), {code: 0, output: ''});
  t.true((await stat(join(data, 'meta.db'))).isFile());

  server.kill('SIGTERM');
  t.deepEqual(await ended, [0, null]);
  t.is((await health()).code, 1);
});

test('npm start, the image and the benchmarks run node with the same flags', async (t) => {
  const [, final] = await readStages();
  const {scripts} = JSON.parse(await readFile(join(PROJECT, 'package.json'), 'utf8'));
  const flagsIn = (words: readonly string[]) => words.filter((word) => word.startsWith('--'));
  t.deepEqual(flagsIn(execOf(final, 'ENTRYPOINT')), NODE_FLAGS);
  t.deepEqual(flagsIn(execOf(final, 'HEALTHCHECK')), NODE_FLAGS);
  t.deepEqual(flagsIn(scripts.start.split(' ')), NODE_FLAGS);
});

test('the image runs as a user other than root, who owns the volume', async (t) => {
  const [, final] = await readStages();
  const [user = ''] = textsOf(final, 'USER');
  const [volume] = textsOf(final, 'VOLUME');
  // Kubernetes checks runAsNonRoot by the number alone.
  t.regex(user, /^[1-9]\d*:[1-9]\d*$/);
  t.true(textsOf(final, 'RUN').some((text) => text.includes(`chown ${user} ${volume}`)));
});

test("the image's labels are those of the package", async (t) => {
  const [, final] = await readStages();
  const {name, description, version, license} = JSON.parse(
    await readFile(join(PROJECT, 'package.json'), 'utf8'),
  );
  const labels = textsOf(final, 'LABEL').flatMap((text) =>
    [...text.matchAll(/org\.opencontainers\.image\.(\w+)="([^"]*)"/g)].map(([, key, value]) => [key, value]),
  );
  t.deepEqual(Object.fromEntries(labels), {title: name, description, version, licenses: license});
});

test('the image exposes the default port', async (t) => {
  const [, final] = await readStages();
  const {listen} = await loadConfig({file: join(PROJECT, 'config/backref.yaml'), env: {}});
  t.deepEqual(
    textsOf(final, 'EXPOSE'),
    listen.map(({address}) => ('port' in address ? String(address.port) : '')),
  );
});

test('.dockerignore lets through what the Dockerfile copies, and nothing else', async (t) => {
  const copied = (await readStages()).flatMap((stage) =>
    textsOf(stage, 'COPY')
      .filter((text) => !text.startsWith('--from'))
      .flatMap((text) => text.split(/\s+/).slice(0, -1)),
  );
  const lines = (await readFile(join(PROJECT, '.dockerignore'), 'utf8')).split('\n');
  const admitted = lines.filter((line) => line.startsWith('!')).map((line) => line.slice(1));
  t.true(lines.includes('*'));
  t.deepEqual(admitted.sort(), [...new Set(copied)].sort());
});

test('the Compose file keeps the volume, and waits longer than the grace period', async (t) => {
  const [, final] = await readStages();
  const {backref} = parse(await readFile(join(PROJECT, 'deploy/compose.yaml'), 'utf8')).services;
  const {listen, shutdown} = await loadConfig({file: join(PROJECT, 'config/backref.yaml'), env: {}});
  t.deepEqual(backref.volumes, [`cache:${textsOf(final, 'VOLUME')[0]}`]);
  const [address] = listen.map((listener) => listener.address);
  t.regex(backref.ports[0], new RegExp(`:${address && 'port' in address && address.port}$`));
  t.true((parseDuration(backref.stop_grace_period) ?? 0) > shutdown.grace);
});
