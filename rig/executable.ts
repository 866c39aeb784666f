import {access, constants} from 'node:fs/promises';
import {delimiter, join} from 'node:path';

/** The user's search path, and the folders of system daemons and of Go, which it often lacks. */
const searchPath = (): string[] => [
  ...(process.env['PATH'] ?? '').split(delimiter),
  ...['/usr/sbin', '/sbin', '/usr/local/go/bin'],
];

/** The path of an executable of this name, in `folders` or else in the search path; undefined when there is none. */
export async function findExecutable(name: string, folders = searchPath()): Promise<string | undefined> {
  for (const folder of folders) {
    const path = join(folder, name);
    const executable = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (executable) return path;
  }
  return undefined;
}
