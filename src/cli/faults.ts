import {constants, existsSync} from 'node:fs';
import {access, mkdir} from 'node:fs/promises';
import {dirname} from 'node:path';
import type {ListenAddress} from '../address.ts';
import type {Config} from '../config.ts';
import {errorCode} from '../error-code.ts';
import type {Events} from '../events.ts';

/**
 * From now on, an unhandled error is reported instead of ending the process: that would disconnect every client, and a
 * client that can cause one would do so again. The store stays sound: content is verified before it is published, and
 * the metadata changes in whole commits.
 */
export function surviveFaults(events: Events): void {
  process.on('unhandledRejection', (error) => events.emit('server.fault', {origin: 'promise', error}));
  process.on('uncaughtException', (error) => events.emit('server.fault', {origin: 'exception', error}));
  // When nobody reads the log any more, each line fails. Reporting that would write another line.
  process.stdout.on('error', () => {});
}

const codeOf = (error: unknown): string => errorCode(error) ?? String(error);

/**
 * Creates the storage folders. A folder on a read-only disk is no fault: what is in it can be served.
 * @returns what is wrong with one that cannot be written to, else undefined
 */
export async function folderFault({storage: {path, blobs, metadata}}: Config): Promise<string | undefined> {
  const folders = [
    {folder: path, setting: 'storage.path', variable: 'BACKREF_STORAGE_PATH'},
    {folder: blobs.path, setting: 'storage.blobs.path', variable: 'BACKREF_STORAGE_BLOBS_PATH'},
    {
      folder: dirname(metadata.path),
      setting: 'storage.metadata.path',
      variable: 'BACKREF_STORAGE_METADATA_PATH',
    },
  ];
  for (const {folder, setting, variable} of folders) {
    try {
      await mkdir(folder, {recursive: true});
      await access(folder, constants.W_OK | constants.X_OK);
    } catch (error) {
      if (errorCode(error) === 'EROFS' && existsSync(folder)) continue;
      return `The folder ${folder} cannot be written to (${codeOf(error)}): let this user write to it, or choose another folder with ${setting} or ${variable}.`;
    }
  }
  return undefined;
}

/** Why a server could not start, and what to do about it. */
export function listenFault(error: unknown, {listen}: Config): string {
  const code = codeOf(error);
  const addresses = listen.map(({address}) => address);
  // A host name is not in the error: what it stands for is.
  const address =
    addresses.find((each) => isAbout(error, each)) ?? addresses.find((each) => !('socket' in each));
  const other = `The server cannot start: ${error instanceof Error ? error.message : code}`;
  if (!address) return other;
  if ('socket' in address) return socketFault(error, address.socket);
  const {host, port} = address;
  const choose = listen.length === 1 ? 'listen.port or BACKREF_LISTEN_PORT' : 'port in its entry of listen';
  if (code === 'EADDRINUSE')
    return `Port ${port} of ${host} is in use: stop the program that listens there, or choose another port with ${choose}.`;
  if (code === 'EACCES')
    return `This user may not open port ${port}: choose a port above 1023 with ${choose}.`;
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND')
    return `${host} is not an address of this machine: choose another address with ${listen.length === 1 ? 'listen.host or BACKREF_LISTEN_HOST' : 'host in its entry of listen'}.`;
  return other;
}

/** Whether an error of the system names the address. */
function isAbout(error: unknown, address: ListenAddress): boolean {
  const named: Record<string, unknown> = error instanceof Error ? {...error} : {};
  if ('socket' in address) return [named['address'], named['path']].includes(address.socket);
  const {host, port} = address;
  return (named['address'] ?? named['hostname']) === host && (named['port'] ?? port) === port;
}

function socketFault(error: unknown, path: string): string {
  const code = codeOf(error);
  if (code === 'EADDRINUSE')
    return `A process listens on the socket ${path}: stop it, or choose another path with socket in listen.`;
  if (code === 'EEXIST')
    return `The file ${path} is not a socket: remove it, or choose another path with socket in listen.`;
  return `The socket ${path} cannot be created (${code}): let this user write to its folder, or choose another path with socket in listen.`;
}
