#!/usr/bin/env node
/* The command as it is published: main.ts for the bundle. Its file is dist/cli/main.js. */
import {homedir} from 'node:os';
import {fileURLToPath} from 'node:url';
import {compiledFolder, runCompiled} from './compiled.ts';

/** A server has run everything by then that it runs at each start; most commands have ended. */
const STORE_AFTER_MS = 5000;

const bundle = fileURLToPath(new URL('../backref.cjs', import.meta.url));
const compiled = runCompiled(bundle, compiledFolder(process.env, homedir));
setTimeout(() => void compiled.store(), STORE_AFTER_MS).unref();
const {program} = compiled.exports as {program(): Promise<typeof import('./program.ts')>};
const {runProgram} = await program();
process.exit(await runProgram(process.argv.slice(2), process));
