import {chmod, mkdir, readdir} from 'node:fs/promises';
import {arch, homedir} from 'node:os';
import {join} from 'node:path';
import {installPackages} from './debian.ts';
import {findExecutable} from './executable.ts';
import type {Scope} from './scope.ts';

/** A command that Go builds from its module's sources. */
export interface GoCommand {
  /** The executable's name. */
  name: string;
  /** Including its `v`. */
  version: string;
  module: string;
  /** The folder of its package in the module, e.g. `cmd/crane`. */
  package: string;
}

const BUILD_TIMEOUT_MS = 15 * 60_000;
/** The oldest Go that builds all of the tools, and the release that is downloaded when Go is older or missing. */
const OLDEST = '1.26.7';
const RELEASE = '1.26.8';

const caches = (): string =>
  join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'backref-tools');

/** The user's folder for this version of a command, whether or not it has been built. */
export const goFolder = ({name, version}: GoCommand): string => join(caches(), `${name}-${version}`, 'bin');

/** Builds a command into its folder. @throws Error with the compiler's output. */
export async function installGo(
  scope: Scope,
  command: GoCommand,
  say: (line: string) => void,
): Promise<void> {
  const go = await findGo(scope, say);
  say(`building ${command.name} ${command.version}`);
  const folder = goFolder(command);
  await mkdir(folder, {recursive: true});
  const settings = {
    env: {...process.env, GOFLAGS: '-buildvcs=false -mod=readonly'},
    timeout: BUILD_TIMEOUT_MS,
  };
  // `go install` also requests the list of a module's versions, which proxies need not serve; this does not.
  const fetch = ['mod', 'download', '-json', `${command.module}@${command.version}`];
  const {Dir: sources} = JSON.parse(await scope.run(go, fetch, {...settings, cwd: scope.folder}));
  const build = ['build', '-o', join(folder, command.name), `./${command.package}`];
  await scope.run(go, build, {...settings, cwd: sources});
}

async function findGo(scope: Scope, say: (line: string) => void): Promise<string> {
  const installed = await findExecutable('go');
  if (installed && (await isRecent(scope, installed))) return installed;
  if (!installed) await installPackages(scope, ['golang-go'], say);
  const old = await findExecutable('go');
  if (!old) throw new Error('golang-go was installed, but go is still not in the path');
  return fetchRelease(scope, old, say);
}

async function isRecent(scope: Scope, go: string): Promise<boolean> {
  const printed = await scope.run(go, ['version'], {env: {...process.env, GOTOOLCHAIN: 'local'}});
  const version = /go(\d+(?:\.\d+)+)/.exec(printed)?.[1] ?? '0';
  return version.localeCompare(OLDEST, 'en', {numeric: true}) >= 0;
}

/** Go's releases are also modules, which even a Go without toolchain support downloads and verifies. */
async function fetchRelease(scope: Scope, go: string, say: (line: string) => void): Promise<string> {
  say(`fetching Go ${RELEASE}`);
  const machine = arch() === 'x64' ? 'amd64' : arch();
  const module = `golang.org/toolchain@v0.0.1-go${RELEASE}.linux-${machine}`;
  const env = {
    ...process.env,
    GOTOOLCHAIN: 'local',
    GOMODCACHE: join(caches(), 'go'),
    GOFLAGS: '-modcacherw',
  };
  const settings = {env, cwd: scope.folder, timeout: BUILD_TIMEOUT_MS};
  const {Dir: root} = JSON.parse(await scope.run(go, ['mod', 'download', '-json', module], settings));
  // The archives of modules do not say which files can be executed.
  const folders = [join(root, 'bin'), join(root, 'pkg', 'tool', `linux_${machine}`)];
  for (const folder of folders) {
    for (const name of await readdir(folder)) await chmod(join(folder, name), 0o755);
  }
  return join(root, 'bin', 'go');
}
