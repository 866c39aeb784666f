import {chmod, readdir, readFile, rm, writeFile} from 'node:fs/promises';
import {findExecutable} from './executable.ts';
import type {Scope} from './scope.ts';

const INSTALL_TIMEOUT_MS = 15 * 60_000;
const POLICY = '/usr/sbin/policy-rc.d';
/** The services that Debian starts when it installs the packages of this run. */
const DAEMONS = ['docker-registry', 'containerd', 'dockerd', 'nginx', 'podman'];

/**
 * Installs Debian packages without starting the services in them.
 * @throws Error when this is not Debian, when the user is not root, when apt-get fails, or when a service runs afterwards.
 */
export async function installPackages(
  scope: Scope,
  packages: readonly string[],
  say: (line: string) => void,
): Promise<void> {
  const aptGet = await findExecutable('apt-get');
  const names = packages.join(' ');
  if (!aptGet) throw new Error(`apt-get is missing; install your system's packages for ${names}`);
  if (process.getuid?.() !== 0) throw new Error(`only root can install it: apt-get install ${names}`);
  say(`installing the Debian packages ${names}`);
  const before = await daemons();
  await withoutServices(async () => {
    const env = {...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1'};
    const settings = ['-o', 'DPkg::Lock::Timeout=300', '-q'];
    await scope.run(aptGet, [...settings, 'update'], {env, timeout: INSTALL_TIMEOUT_MS});
    const install = [...settings, 'install', '--no-install-recommends', '-y', ...packages];
    await scope.run(aptGet, install, {env, timeout: INSTALL_TIMEOUT_MS});
  });
  const started = [...(await daemons())].filter((daemon) => !before.has(daemon));
  if (started.length === 0) return;
  throw new Error(
    `installing ${names} started services that are not wanted, stop them: ${started.join(', ')}`,
  );
}

/** Installing a package starts its service unless this policy forbids it by exiting with 101 (policy-rc.d). */
async function withoutServices(install: () => Promise<void>): Promise<void> {
  try {
    await writeFile(POLICY, '#!/bin/sh\nexit 101\n', {flag: 'wx'});
  } catch {
    return install(); // The machine has its own policy: Debian's container images have one that forbids services.
  }
  try {
    await chmod(POLICY, 0o755);
    await install();
  } finally {
    await rm(POLICY, {force: true});
  }
}

/** The service daemons among the running processes, as `name (pid)`. */
async function daemons(): Promise<Set<string>> {
  const running = new Set<string>();
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const name = (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')).trim();
    if (DAEMONS.includes(name)) running.add(`${name} (${pid})`);
  }
  return running;
}
