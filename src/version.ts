import {readFileSync} from 'node:fs';

/** The version of this package. Its `package.json` is beside the folder of the sources, and of the built files. */
export const readVersion = (): string =>
  JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version;
