/** Runs a script with the code that V8 has compiled for it in an earlier run, which takes half of the time. */
import {closeSync, constants, fstatSync, openSync, readFileSync} from 'node:fs';
import {mkdir, rename, rm, writeFile} from 'node:fs/promises';
import {createRequire} from 'node:module';
import {dirname, isAbsolute, join} from 'node:path';
import {cachedDataVersionTag} from 'node:v8';
import {Script} from 'node:vm';
import {crc32} from 'node:zlib';

/** A script that has run. */
export interface CompiledScript {
  readonly exports: unknown;
  /** Whether it ran with code that an earlier run has stored. */
  readonly wasStored: boolean;
  /** Stores the code of what has run until now, unless it is stored already. Never rejects: a start does without. */
  store(): Promise<void>;
}

/**
 * Runs a CommonJS module that is written as node would run it, `(function (exports, require, module, __filename,
 * __dirname) {…})`: to put that around a large text would double it.
 * @param file the path of the script, in ASCII, without `import()`
 * @param folder where compiled code is kept; undefined for nowhere
 * @throws what the script throws; the system's error when it cannot be read
 */
export function runCompiled(file: string, folder: string | undefined): CompiledScript {
  const source = readFileSync(file);
  // All that is kept of these bytes: they are as large as the script.
  const sum = crc32(source);
  // V8 refuses the code of other versions and flags, and what it refuses is replaced: each has a file of its own.
  const name = `${process.version}-${process.arch}-${cachedDataVersionTag()}.bin`;
  const place = folder && join(folder, name);
  const cachedData = place === undefined ? undefined : readCode(place, sum);
  const script = new Script(source.toString('latin1'), {
    filename: file,
    ...(cachedData ? {cachedData} : {}),
  });
  const wasStored = cachedData !== undefined && script.cachedDataRejected === false;
  const module = {exports: {} as unknown};
  script.runInThisContext()(module.exports, createRequire(file), module, file, dirname(file));
  return {
    exports: module.exports,
    wasStored,
    async store() {
      if (place === undefined || wasStored) return;
      await writeCode(place, sum, script.createCachedData()).catch(() => {});
    },
  };
}

/**
 * The folder for compiled code: that of the XDG Base Directory Specification for caches, or none where node is told to
 * keep no compiled code, or the user has no home.
 */
export function compiledFolder(
  {XDG_CACHE_HOME: caches = '', NODE_DISABLE_COMPILE_CACHE: disabled}: NodeJS.ProcessEnv,
  home: () => string,
): string | undefined {
  if (disabled) return undefined;
  if (isAbsolute(caches)) return join(caches, 'backref');
  try {
    return join(home(), '.cache', 'backref');
  } catch {
    return undefined;
  }
}

/** The checksums of the script and of the code come before it: V8 itself compares neither its bytes nor more of the script than the length. */
const HEADER_BYTES = 8;

/** @returns undefined unless this user has written it, nobody else could, it is whole and belongs to this script. */
function readCode(place: string, sum: number): Buffer | undefined {
  try {
    const bytes = readOwnFile(place);
    if (!bytes || bytes.length <= HEADER_BYTES) return undefined;
    const code = bytes.subarray(HEADER_BYTES);
    return headerOf(sum, code).equals(bytes.subarray(0, HEADER_BYTES)) ? code : undefined;
  } catch {
    return undefined;
  }
}

/** Whoever can write what is run here could do everything that this process can. */
function readOwnFile(place: string): Buffer | undefined {
  // Opening a pipe would wait for its writer.
  const descriptor = openSync(place, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const status = fstatSync(descriptor);
    const isOwn = status.isFile() && status.uid === process.geteuid?.() && (status.mode & 0o022) === 0;
    return isOwn ? readFileSync(descriptor) : undefined;
  } finally {
    closeSync(descriptor);
  }
}

/** Renamed into its place when it is whole. */
async function writeCode(place: string, sum: number, code: Buffer): Promise<void> {
  await mkdir(dirname(place), {recursive: true, mode: 0o700});
  const next = `${place}.new`;
  await rm(next, {force: true});
  await writeFile(next, Buffer.concat([headerOf(sum, code), code]), {mode: 0o600, flag: 'wx'});
  await rename(next, place);
}

function headerOf(sum: number, code: Buffer): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(sum, 0);
  header.writeUInt32LE(crc32(code), 4);
  return header;
}
