import {execFileSync} from 'node:child_process';

/**
 * Writes an executable shell script to `path`. A process of its own writes it: while this process has a file open for
 * writing, a child that another test starts holds it too until its own exec, and running the file fails with ETXTBSY.
 */
export function writeScript(path: string, lines: string): void {
  execFileSync('/bin/sh', ['-c', 'cat >"$1" && chmod 755 "$1"', 'sh', path], {
    input: `#!/bin/sh\n${lines}\n`,
  });
}
