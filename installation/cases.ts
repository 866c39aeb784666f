import {mkdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {cleanEnvironment} from '../rig/npm.ts';
import {ownPort} from '../rig/port.ts';
import {answers, ready, type Scope} from '../rig/scope.ts';

/** Something that a user does with the installed package. */
export interface Case {
  name: string;
  /** @throws Error that says what is wrong. */
  run(scope: Scope): Promise<void>;
}

/** For installing the package with all of its dependencies. */
const INSTALL_TIMEOUT_MS = 5 * 60_000;
const PROJECT = fileURLToPath(new URL('..', import.meta.url));
const CONFIG = 'config.yaml';

/** The package in a folder of its own. */
export interface Installation {
  folder: string;
  /** The environment in which its command finds the Node that it was installed with. */
  env: Record<string, string>;
  /** The path of its command. */
  command: string;
}

/**
 * Installs a tarball into an empty folder, with a configuration of one hosted registry beside it.
 * @param node the folder of the `node` that npm and the command use.
 * @throws Error when npm fails or prints a warning.
 */
export async function install(scope: Scope, tarball: string, node: string): Promise<Installation> {
  const {folder} = await scope.child();
  const env = cleanEnvironment(node);
  await writeFile(join(folder, 'package.json'), '{"private": true}');
  const printed = await scope.run('sh', ['-c', 'npm install --no-fund --no-audit "$0" 2>&1', tarball], {
    cwd: folder,
    env,
    timeout: INSTALL_TIMEOUT_MS,
  });
  if (/warn|error/i.test(printed)) throw new Error(`npm install complains: ${printed}`);
  const port = await ownPort();
  const config = {listen: {host: '127.0.0.1', port}, registries: {'apps.local': {default: true}}};
  await writeFile(join(folder, CONFIG), JSON.stringify(config)); // JSON is YAML.
  return {
    folder,
    env: {...env, BACKREF_CONFIG: CONFIG, BACKREF_LISTEN_PORT: String(port)},
    command: join(folder, 'node_modules/.bin/backref'),
  };
}

/** The cases for an installed package. */
export const casesOf = ({folder, env, command}: Installation): Case[] => {
  const options = {cwd: folder, env};
  const url = `http://127.0.0.1:${env['BACKREF_LISTEN_PORT']}`;
  return [
    {
      name: 'backref config check',
      run: async (scope) =>
        expect(
          await scope.run(command, ['config', 'check'], options),
          /valid \(config\.yaml\): 1 registry\./,
        ),
    },
    {
      name: 'backref serve and backref health',
      async run(scope) {
        const server = scope.start(command, ['serve'], options);
        await ready(server, 'backref serve', answers(`${url}/v2/`));
        await scope.run(command, ['health'], options);
        await server.stop();
        expect(server.output(), /Pull through it/);
      },
    },
    {
      name: 'the library',
      async run(scope) {
        await writeFile(join(folder, 'library.mjs'), LIBRARY);
        expect(await scope.run('node', ['library.mjs'], options), /^listed\n$/);
      },
    },
  ];
};

/** A program that serves its own registry, attaches an artifact to a manifest in it and lists the referrers. */
const LIBRARY = `
import {attach, createServer, listReferrers, loadConfig} from 'backref';

const server = createServer(await loadConfig());
const {url, port} = await server.listen();
const mediaType = 'application/vnd.oci.image.index.v1+json';
await fetch(url + '/v2/app/manifests/1', {
  method: 'PUT',
  headers: {'content-type': mediaType},
  body: JSON.stringify({schemaVersion: 2, mediaType, manifests: []}),
});
const target = 'docker://127.0.0.1:' + port + '/app';
const artifact = {mediaType: 'text/plain', data: Buffer.from('hello')};
const digest = await attach(target, '1', artifact, {plainHttp: true});
const {manifests} = await listReferrers(target, '1', {plainHttp: true});
await server.close();
if (manifests.length === 1 && manifests[0].digest === digest) console.log('listed');
`;

/** An older Node gets one sentence. @param node the folder of its executable. */
export const oldNodeCase = (installation: Installation, node: string): Case => ({
  name: 'one sentence on an older Node',
  async run(scope) {
    const {folder, command} = installation;
    // `scope.run` would reject the exit status; the shell prints it instead.
    const printed = await scope.run('sh', ['-c', '"$0" serve 2>&1; echo "exit $?"', command], {
      cwd: folder,
      env: cleanEnvironment(node),
    });
    expect(printed, /^backref needs Node [^\n]*\nexit 1\n$/);
  },
});

/** `npm install --global .` in a checkout. @param node the folder of the `node` that the command uses. */
export const linkCase = (node: string): Case => ({
  name: 'npm install --global of a checkout',
  async run(scope) {
    const prefix = join(scope.folder, 'global');
    await mkdir(prefix);
    const env = {...cleanEnvironment(node), npm_config_prefix: prefix};
    await scope.run('npm', ['install', '--global', PROJECT], {
      cwd: prefix,
      env,
      timeout: INSTALL_TIMEOUT_MS,
    });
    expect(
      await scope.run(join(prefix, 'bin/backref'), ['--version'], {cwd: prefix, env}),
      /^\d+\.\d+\.\d+\n$/,
    );
  },
});

function expect(printed: string, pattern: RegExp): void {
  if (!pattern.test(printed)) throw new Error(`expected ${pattern}, but it printed: ${printed}`);
}
