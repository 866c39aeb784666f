import {join} from 'node:path';
import {OFFLINE, VERIFY_OFFLINE} from '../attachments/cosign.ts';
import {NAME, writePolicy} from '../attachments/notation.ts';
import {writeDockerConfig} from './docker-config.ts';
import {environmentWithCa, type LoginClient, type LoginPlace} from './login-client.ts';

/** cosign keeps what it is given, unseen, in Docker's configuration file. */
export const cosign: LoginClient = {
  name: 'cosign, sign and verify',
  tools: ['cosign'],
  checksLogin: false,
  async open(place) {
    const {scope, tools, host} = place;
    const env = {...environmentWithCa(place), COSIGN_PASSWORD: 'interop'};
    const run = (...args: string[]) => scope.run(tools.path('cosign'), args, {env, cwd: scope.folder});
    await run('generate-key-pair');
    let token: readonly string[] = [];
    return {
      async login(credential) {
        const {kind} = credential;
        if (kind === 'none') return;
        if (kind === 'access token') token = ['--registry-token', credential.secret];
        else if (kind === 'refresh token') await writeDockerConfig(place, credential);
        else await run('login', '--username', credential.user, '--password', credential.secret, host);
      },
      async push() {
        await run('sign', '--key', 'cosign.key', ...OFFLINE, ...token, signed(place));
      },
      async pull() {
        await run('verify', '--key', 'cosign.pub', ...VERIFY_OFFLINE, ...token, signed(place));
      },
    };
  },
};

/** notation reads Docker's configuration file, and a password from its environment: `login` needs a desktop's keychain. */
export const notation: LoginClient = {
  name: 'notation, sign and verify',
  tools: ['notation'],
  checksLogin: false,
  async open(place) {
    const {scope, tools} = place;
    const env: NodeJS.ProcessEnv = {
      ...environmentWithCa(place),
      XDG_CONFIG_HOME: join(scope.folder, 'settings'),
    };
    const run = (...args: string[]) => scope.run(tools.path('notation'), args, {env});
    await run('cert', 'generate-test', '--default', NAME);
    await writePolicy(join(scope.folder, 'settings', 'notation'));
    return {
      async login(credential) {
        const {kind} = credential;
        if (kind === 'none') return;
        if (kind === 'access token') return writeDockerConfig(place, credential);
        if (kind === 'password') env['NOTATION_USERNAME'] = credential.user;
        env['NOTATION_PASSWORD'] = credential.secret;
      },
      async push() {
        await run('sign', signed(place));
      },
      async pull() {
        await run('verify', signed(place));
      },
    };
  },
};

const signed = ({host, image}: LoginPlace): string => `${host}/${image.repository}@${image.index.digest}`;
