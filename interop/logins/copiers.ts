import {readFile} from 'node:fs/promises';
import {join} from 'node:path';
import {expectAll} from '../clients/client.ts';
import {everyDigest, hashFiles} from '../clients/copied-files.ts';
import {writeImageLayout} from '../layout.ts';
import {certificateFolder} from './certificates.ts';
import {writeDockerConfig} from './docker-config.ts';
import {
  environment,
  environmentWithCa,
  imageName,
  type LoginClient,
  type LoginPlace,
  pushedName,
} from './login-client.ts';

/** crane keeps what it is given, unseen, in Docker's configuration file. */
export const crane: LoginClient = {
  name: 'crane',
  tools: ['crane'],
  checksLogin: false,
  async open(place) {
    const {scope, tools, host, own} = place;
    const run = (...args: string[]) => scope.run(tools.path('crane'), args, {env: environmentWithCa(place)});
    return {
      async login(credential) {
        if (credential.kind === 'none') return;
        if (credential.kind !== 'password') return writeDockerConfig(place, credential);
        const {user, secret} = credential;
        await run('auth', 'login', '--username', user, '--password', secret, host);
      },
      async push() {
        await run('push', await writeImageLayout(scope, own), pushedName(place));
      },
      pull: () =>
        copied(place, async (folder) => {
          await run('pull', '--format', 'oci', imageName(place), folder);
        }),
    };
  },
};

export const oras: LoginClient = {
  name: 'oras',
  tools: ['oras'],
  checksLogin: true,
  async open(place) {
    const {scope, tools, host, image, own, ca} = place;
    const run = (...args: string[]) => scope.run(tools.path('oras'), args, {env: environment(place)});
    const trust = (option: string) => (ca === undefined ? [] : [option, ca]);
    return {
      async login(credential) {
        const {kind} = credential;
        if (kind === 'none') return;
        if (kind === 'access token') return writeDockerConfig(place, credential);
        const {secret} = credential;
        const given =
          kind === 'password'
            ? ['--username', credential.user, '--password', secret]
            : ['--identity-token', secret];
        await run('login', ...trust('--ca-file'), ...given, host);
      },
      async push() {
        const layout = `${await writeImageLayout(scope, own, own.tag)}:${own.tag}`;
        await run(
          'copy',
          '--no-tty',
          '--from-oci-layout',
          ...trust('--to-ca-file'),
          layout,
          pushedName(place),
        );
      },
      pull: () =>
        copied(place, async (folder) => {
          const to = ['--to-oci-layout', `${folder}:${image.tag}`];
          await run('copy', '--no-tty', ...trust('--from-ca-file'), imageName(place), ...to);
        }),
    };
  },
};

export const regctl: LoginClient = {
  name: 'regctl',
  tools: ['regctl'],
  checksLogin: true,
  renewsEarlyMs: 5_000,
  cannot: {'access token': 'it has no setting for one'},
  async open(place) {
    const {scope, tools, host, image, own, ca} = place;
    const run = (...args: string[]) => scope.run(tools.path('regctl'), args, {env: environment(place)});
    if (ca !== undefined)
      await run('registry', 'set', host, '--skip-check', '--cacert', await readFile(ca, 'utf8'));
    return {
      async login(credential) {
        if (credential.kind === 'none') return;
        if (credential.kind !== 'password') return writeDockerConfig(place, credential);
        const {user, secret} = credential;
        await run('registry', 'login', host, '--user', user, '--pass', secret);
      },
      async push() {
        const layout = await writeImageLayout(scope, own, own.tag);
        await run('image', 'copy', `ocidir://${layout}:${own.tag}`, pushedName(place));
      },
      pull: () =>
        copied(place, async (folder) => {
          await run('image', 'copy', imageName(place), `ocidir://${folder}:${image.tag}`);
        }),
    };
  },
};

export const skopeo: LoginClient = {
  name: 'skopeo',
  tools: ['skopeo'],
  checksLogin: true,
  async open(place) {
    const {scope, tools, host, own} = place;
    const run = (...args: string[]) => scope.run(tools.path('skopeo'), args, {env: environment(place)});
    const certificates = await certificateFolder(scope, place.ca);
    const copy = ['--insecure-policy', 'copy', '--all', '--preserve-digests'];
    let token: string | undefined;
    const settings = (end: 'src' | 'dest') => [
      ...(certificates === undefined ? [] : [`--${end}-cert-dir`, certificates]),
      ...(token === undefined ? [] : [`--${end}-registry-token`, token]),
    ];
    return {
      async login(credential) {
        const {kind} = credential;
        if (kind === 'none') return;
        if (kind === 'refresh token') return writeDockerConfig(place, credential);
        if (kind === 'access token') {
          token = credential.secret;
          return;
        }
        const trust = certificates === undefined ? [] : ['--cert-dir', certificates];
        const given = ['--username', credential.user, '--password', credential.secret];
        await run('login', ...trust, ...given, host);
      },
      async push() {
        const layout = await writeImageLayout(scope, own, own.tag);
        await run(...copy, ...settings('dest'), `oci:${layout}:${own.tag}`, `docker://${pushedName(place)}`);
      },
      pull: () =>
        copied(place, async (folder) => {
          await run(...copy, ...settings('src'), `docker://${imageName(place)}`, `dir:${folder}`);
        }),
    };
  },
};

async function copied({scope, image}: LoginPlace, copy: (folder: string) => Promise<void>): Promise<void> {
  const own = await scope.child();
  const folder = join(own.folder, 'copy');
  await copy(folder);
  expectAll('the copied files', everyDigest(image), await hashFiles(folder));
  await own.end();
}
