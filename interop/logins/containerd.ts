import {mkdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {startContainerd} from '../clients/containerd.ts';
import {writeImageLayout} from '../layout.ts';
import {
  type Credential,
  environment,
  imageName,
  type LoginClient,
  type LoginPlace,
  pushedName,
} from './login-client.ts';

/** containerd's own client, which is given credentials with each command. */
export const containerd: LoginClient = {
  name: 'containerd, ctr',
  tools: ['containerd', 'ctr'],
  checksLogin: false,
  // It sends the same token once more.
  stumbles: /invalid_token: authorization failed/,
  async open(place) {
    const {scope, own} = place;
    const {ctr} = await startContainerd(scope, place.tools, environment(place));
    let given = await settings(place, {kind: 'none'});
    return {
      async login(credential) {
        given = await settings(place, credential);
      },
      async push() {
        const layout = await writeImageLayout(scope, own, pushedName(place));
        const archive = join(scope.folder, 'layout.tar');
        await scope.run('tar', ['-C', layout, '-cf', archive, '.']);
        await ctr('images', 'import', '--all-platforms', '--no-unpack', archive);
        await ctr('images', 'push', ...given, pushedName(place));
      },
      async pull() {
        await ctr('content', 'fetch', ...given, '--all-platforms', imageName(place));
      },
    };
  },
};

/** Tells it of the authority, and of a bearer token, in `hosts.toml`. @returns the options of a command */
async function settings({scope, host, ca}: LoginPlace, credential: Credential): Promise<string[]> {
  const hosts = join(scope.folder, 'hosts');
  await mkdir(join(hosts, host), {recursive: true});
  const {kind} = credential;
  const header =
    kind === 'access token'
      ? `[host."https://${host}".header]\n  Authorization = ["Bearer ${credential.secret}"]\n`
      : '';
  const entry = [
    `server = "https://${host}"`,
    `[host."https://${host}"]`,
    '  capabilities = ["pull", "resolve", "push"]',
    ...(ca === undefined ? [] : [`  ca = "${ca}"`]),
  ];
  await writeFile(join(hosts, host, 'hosts.toml'), `${entry.join('\n')}\n${header}`);
  const options = ['--hosts-dir', hosts];
  if (kind === 'password') return [...options, '--user', `${credential.user}:${credential.secret}`];
  return kind === 'refresh token' ? [...options, '--refresh', credential.secret] : options;
}
