/* Reads two files one after the other with so few descriptors that the first one cannot stay open. It says how many bytes
   each of them has, and is run with a limit on open files. */
import {open} from 'node:fs/promises';
import {systemClock} from '../../../src/clock.ts';
import {createReadPool} from '../../../src/storage/fs/read-pool.ts';
import {createSharedFiles} from '../../../src/storage/fs/shared-files.ts';

const [first = '', second = ''] = process.argv.slice(2);
const files = createSharedFiles(createReadPool(), {clock: systemClock});

async function read(path: string): Promise<void> {
  const file = await files.open(path);
  let bytes = 0;
  for await (const chunk of file.read(0, file.size)) bytes += chunk.length;
  await file.close();
  process.stdout.write(`${bytes}\n`);
}

await read(first);
const others = [];
for (;;) {
  const other = await open('/dev/null').catch(() => undefined);
  if (!other) break;
  others.push(other);
}
await read(second);
process.exit();
