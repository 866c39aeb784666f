import {constants} from 'node:fs';
import {access, mkdir} from 'node:fs/promises';
import {dirname} from 'node:path';
import type {Config} from '../config.ts';
import type {Events} from '../events.ts';

/**
 * From now on, an error that nothing handles is reported instead of ending the process: it would cut off every client,
 * and one that a client can cause would do so again and again. What is stored stays sound: content is verified before
 * it is published, and the metadata changes by whole commits.
 */
export function surviveFaults(events: Events): void {
  process.on('unhandledRejection', (error) => events.emit('server.fault', {origin: 'promise', error}));
  process.on('uncaughtException', (error) => events.emit('server.fault', {origin: 'exception', error}));
  // When the reader of the log has gone, each line fails; reported, it would be a line again.
  process.stdout.on('error', () => {});
}

const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error ? String(error.code) : String(error);

/** Makes the folders of what is kept. @returns what is wrong with one that cannot be written to, else undefined. */
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
      return `The folder ${folder} cannot be written to (${codeOf(error)}): let this user write there, or choose another one with ${setting} or ${variable}.`;
    }
  }
  return undefined;
}

/** What a failed start means and what to do about it. */
export function listenFault(error: unknown, {listen: {host, port}}: Config): string {
  const code = codeOf(error);
  const choose = 'listen.port or BACKREF_LISTEN_PORT';
  if (code === 'EADDRINUSE')
    return `Port ${port} of ${host} is in use: end what listens there, or choose another one with ${choose}.`;
  if (code === 'EACCES')
    return `Port ${port} may not be opened by this user: choose one above 1023 with ${choose}.`;
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND')
    return `${host} is no address of this machine: choose one with listen.host or BACKREF_LISTEN_HOST.`;
  return `The server cannot start: ${error instanceof Error ? error.message : code}`;
}
