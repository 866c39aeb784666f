#!/usr/bin/env node
// The command `backref`. Checks the version of Node before it imports anything, since an older Node cannot load the rest.
// Node 14 can parse this file. The versions are those of "engines" in package.json.
import {existsSync} from 'node:fs';

const {node: version} = process.versions;
const [major, minor] = version.split('.').map(Number);
const isSupported = major > 24 || (major === 24 && minor >= 5) || (major === 22 && minor >= 21);

if (isSupported) {
  // A checkout, to which `npm install --global .` links, runs its sources. The package has none.
  const sources = new URL('../src/cli/main.ts', import.meta.url);
  import(existsSync(sources) ? sources.href : '../dist/cli/main.js');
} else {
  process.stderr.write(
    `backref needs Node ^22.21 || >=24.5, and this is ${version}: install a newer Node.\n`,
  );
  process.exitCode = 1;
}
