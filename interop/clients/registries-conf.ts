import {mkdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import type {Scope} from '../../rig/scope.ts';

/** Gives docker.io a mirror in the `registries.conf` of the scope's home (containers-registries.conf(5)). */
export async function mirrorDockerIo(
  scope: Scope,
  host: string,
  {isInsecure = true}: {isInsecure?: boolean} = {},
): Promise<void> {
  const folder = join(scope.folder, '.config', 'containers');
  await mkdir(folder, {recursive: true});
  const mirror = `[[registry.mirror]]\nlocation = "${host}"\ninsecure = ${isInsecure}\n`;
  await writeFile(join(folder, 'registries.conf'), `[[registry]]\nlocation = "docker.io"\n${mirror}`);
}
