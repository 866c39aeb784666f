import {readFileSync} from 'node:fs';

/** The version of this package; its `package.json` lies beside the folder of the sources, and of what is built. */
export const readVersion = (): string =>
  JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version;
