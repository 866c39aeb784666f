import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import type {Clock} from '../../src/clock.ts';
import type {TlsPaths} from '../../src/http/tls-files.ts';
import {createMovableClock, type MovableClock} from './backref.ts';
import {SERVER_TLS} from './certificates.ts';
import {createFolder} from './folder.ts';
import type {Lifetime} from './shared.ts';

export interface WrittenTls {
  paths: TlsPaths;
  /** Writes into the files, one after the other. */
  write(texts: {cert?: string; key?: string; clientCa?: string}): Promise<void>;
}

/** The files of a key pair, with that of `SERVER_TLS`. */
export async function writeTls(t: Lifetime, {clientCa}: {clientCa?: string} = {}): Promise<WrittenTls> {
  const folder = await createFolder(t);
  const at = {cert: join(folder, 'tls.crt'), key: join(folder, 'tls.key'), clientCa: join(folder, 'ca.crt')};
  const write: WrittenTls['write'] = async (texts) => {
    for (const [file, text] of Object.entries(texts)) await writeFile(at[file as keyof typeof at], text);
  };
  await write({...SERVER_TLS, ...(clientCa === undefined ? {} : {clientCa})});
  return {paths: {...at, clientCa: clientCa === undefined ? undefined : at.clientCa}, write};
}

/** The interval in which key pairs are looked at. */
const INTERVAL_MS = 10_000;

export interface LookingClock extends MovableClock {
  /** Lets the files of a key pair be looked at once. Resolves when that is over. */
  look(): Promise<void>;
}

/** A clock with which the files of one listener are looked at when a test says so. */
export function createLookingClock(): LookingClock {
  const clock = createMovableClock();
  let waiting = Promise.withResolvers<() => void>();
  const after: Clock['after'] = (ms, call) => {
    if (ms !== INTERVAL_MS) return clock.after(ms, call);
    waiting.resolve(call);
    return () => {};
  };
  return {
    ...clock,
    after,
    async look() {
      const call = await waiting.promise;
      waiting = Promise.withResolvers();
      call();
      await waiting.promise;
    },
  };
}
