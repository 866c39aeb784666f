import {mkdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {startContainerd} from '../clients/containerd.ts';
import {startEngine} from '../clients/docker.ts';
import {podmanIn} from '../clients/podman.ts';
import {mirrorDockerIo} from '../clients/registries-conf.ts';
import {pullByCri} from './cri.ts';
import {environment, IMAGE, type MirrorClient, type MirrorPlace, writeLogin} from './mirror-client.ts';

const docker: MirrorClient = {
  name: 'Docker Engine, registry-mirrors',
  tools: ['dockerd', 'docker'],
  sends: {'docker.io': 'sent', 'the mirror': undefined},
  async pull(place) {
    const docker = await startMirrored(place);
    await writeLogin(place);
    await docker('pull', '--quiet', IMAGE);
  },
};

const buildKit: MirrorClient = {
  name: 'BuildKit in Docker Engine, registry-mirrors',
  tools: ['dockerd', 'docker'],
  sends: {'docker.io': undefined, 'the mirror': 'sent'},
  async pull(place) {
    const docker = await startMirrored(place, {DOCKER_BUILDKIT: '1'});
    await writeLogin(place);
    const context = join(place.scope.folder, 'context');
    await mkdir(context);
    await writeFile(join(context, 'Dockerfile'), `FROM ${IMAGE}\n`);
    await docker('build', context);
  },
};

const startMirrored = (place: MirrorPlace, surroundings: NodeJS.ProcessEnv = {}) =>
  startEngine(
    place.scope,
    place.tools,
    {'registry-mirrors': [`https://${place.mirror}`]},
    {...environment(place), ...surroundings},
  );

const ctr: MirrorClient = {
  name: 'containerd, ctr and hosts.toml',
  tools: ['containerd', 'ctr'],
  sends: {'docker.io': 'sent', 'the mirror': 'sent, as a header in hosts.toml'},
  async pull(place) {
    const {scope, tools, login} = place;
    const hosts = await writeHosts(place);
    const {ctr} = await startContainerd(scope, tools, environment(place));
    const given = login.of === 'docker.io' ? ['--user', `${login.user}:${login.secret}`] : [];
    await ctr('content', 'fetch', '--hosts-dir', hosts, ...given, IMAGE);
  },
};

const cri: MirrorClient = {
  name: 'containerd, CRI and hosts.toml',
  tools: ['containerd', 'ctr'],
  sends: {'docker.io': 'sent', 'the mirror': 'sent, as a header in hosts.toml'},
  async pull(place) {
    const {scope, tools, login} = place;
    const hosts = await writeHosts(place);
    const settings = `[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "${hosts}"\n`;
    const {socket} = await startContainerd(scope, tools, environment(place), settings);
    await pullByCri(socket, IMAGE, login.of === 'docker.io' ? login : undefined);
  },
};

/** The mirror, with the login in its own headers if it is the mirror's: that is the only place for it. */
async function writeHosts({scope, mirror, ca, login: {of, user, secret}}: MirrorPlace): Promise<string> {
  const hosts = join(scope.folder, 'hosts');
  await mkdir(join(hosts, 'docker.io'), {recursive: true});
  const basic = Buffer.from(`${user}:${secret}`).toString('base64');
  const header = `  [host."https://${mirror}".header]\n    Authorization = "Basic ${basic}"\n`;
  const entry = [
    'server = "https://registry-1.docker.io"',
    `[host."https://${mirror}"]`,
    '  capabilities = ["pull", "resolve"]',
    `  ca = "${ca}"`,
  ];
  const text = `${entry.join('\n')}\n${of === 'the mirror' ? header : ''}`;
  await writeFile(join(hosts, 'docker.io', 'hosts.toml'), text);
  return hosts;
}

const podman: MirrorClient = {
  name: 'Podman, registries.conf',
  tools: ['podman'],
  sends: {'docker.io': undefined, 'the mirror': 'sent'},
  async pull(place) {
    const {scope, tools, mirror} = place;
    await mirrorDockerIo(scope, mirror, {isInsecure: false});
    await writeLogin(place, 'docker.io');
    const {command, policy} = await podmanIn(scope, tools, environment(place));
    await command('pull', '--quiet', ...policy, IMAGE);
  },
};

const skopeo: MirrorClient = {
  name: 'skopeo, registries.conf',
  tools: ['skopeo'],
  sends: {'docker.io': undefined, 'the mirror': 'sent'},
  async pull(place) {
    const {scope, tools, mirror} = place;
    await mirrorDockerIo(scope, mirror, {isInsecure: false});
    await writeLogin(place, 'docker.io');
    const copy = ['--insecure-policy', 'inspect', '--raw', `docker://${IMAGE}`];
    await scope.run(tools.path('skopeo'), copy, {env: environment(place)});
  },
};

const regctl: MirrorClient = {
  name: 'regctl, registry set --mirror',
  tools: ['regctl'],
  sends: {'docker.io': undefined, 'the mirror': 'sent'},
  async pull(place) {
    const {scope, tools, mirror} = place;
    const run = (...args: string[]) => scope.run(tools.path('regctl'), args, {env: environment(place)});
    await writeLogin(place);
    await run('registry', 'set', 'docker.io', '--skip-check', '--mirror', mirror);
    await run('manifest', 'head', IMAGE);
  },
};

/** Every client that pulls through a mirror, in the order of the table. */
export const MIRROR_CLIENTS: readonly MirrorClient[] = [docker, buildKit, ctr, cri, podman, skopeo, regctl];
