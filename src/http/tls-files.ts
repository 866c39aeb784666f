import {readFile} from 'node:fs/promises';
import type {SecureContextOptions} from 'node:tls';
import {isDeepStrictEqual} from 'node:util';
import type {Cancel, Clock} from '../clock.ts';
import {errorCode} from '../error-code.ts';
import type {Events} from '../events.ts';
import {expiryOf, type KeyPair, keyPairFault} from '../key-pair.ts';

/** The paths of the files that hold a key pair. */
export interface TlsPaths extends Readonly<KeyPair> {}

/** The key pair of one listener, read from its files whenever they change. */
export interface TlsFiles {
  /** Reads the files. @throws Error when the pair cannot be used; the system's error */
  read(): Promise<SecureContextOptions>;
  /**
   * From now on, looks at the files in intervals, and calls `apply` with each new pair that can be used. One that cannot
   * is reported, and the last one stays.
   */
  watch(apply: (context: SecureContextOptions) => void): void;
  /** Ends the watch. Idempotent. */
  close(): void;
}

export interface TlsFilesParts {
  /** What events call the listener. */
  listener: string;
  paths: TlsPaths;
  clock: Clock;
  events: Events;
}

/**
 * How often the files are read. Whoever replaces them keeps the old certificate valid for much longer. Comparing what
 * they say also notices a symbolic link that leads elsewhere, as in the volumes of Kubernetes.
 */
const INTERVAL_MS = 10_000;

export const createTlsFiles = (parts: TlsFilesParts): TlsFiles => new WatchedTlsFiles(parts);

/** A key pair that can be used, or why there is none. */
type Found = {readonly pair: KeyPair} | {readonly path: string; readonly problem: string};

class WatchedTlsFiles implements TlsFiles {
  readonly #parts: TlsFilesParts;
  #inForce: KeyPair | undefined;
  /** What is wrong with the files now. */
  #fault: {readonly problem: string; isReported: boolean} | undefined;
  #isExpiryReported = false;
  #cancel: Cancel | undefined;
  #isClosed = false;

  constructor(parts: TlsFilesParts) {
    this.#parts = parts;
  }

  async read(): Promise<SecureContextOptions> {
    const found = await readPair(this.#parts.paths);
    if ('problem' in found) throw new Error(`the file ${found.path} ${found.problem}`);
    return this.#adopt(found.pair);
  }

  watch(apply: (context: SecureContextOptions) => void): void {
    if (this.#isClosed) return;
    this.#cancel = this.#parts.clock.after(
      INTERVAL_MS,
      () => void this.#look(apply).finally(() => this.watch(apply)),
    );
  }

  close(): void {
    this.#isClosed = true;
    this.#cancel?.();
  }

  async #look(apply: (context: SecureContextOptions) => void): Promise<void> {
    const found = await readPair(this.#parts.paths);
    if (this.#isClosed) return;
    if ('problem' in found) this.#reject(found.path, found.problem);
    else if (!isDeepStrictEqual(found.pair, this.#inForce)) apply(this.#adopt(found.pair));
    else this.#fault = undefined;
    this.#reportExpiry();
  }

  /** Files that are replaced one after the other do not match meanwhile: a problem counts when it is found twice. */
  #reject(path: string, problem: string): void {
    if (this.#fault?.problem !== problem) {
      this.#fault = {problem, isReported: false};
    } else if (!this.#fault.isReported) {
      this.#fault.isReported = true;
      this.#parts.events.emit('certificate.rejected', {listener: this.#parts.listener, path, problem});
    }
  }

  #adopt(pair: KeyPair): SecureContextOptions {
    const {listener, paths, events} = this.#parts;
    this.#inForce = pair;
    this.#fault = undefined;
    this.#isExpiryReported = false;
    events.emit('certificate.loaded', {listener, path: paths.cert, expiresAt: expiryOf(pair.cert)});
    this.#reportExpiry();
    const {cert, key, clientCa: ca} = pair;
    return {cert, key, ca, minVersion: 'TLSv1.2'};
  }

  #reportExpiry(): void {
    const {listener, paths, clock, events} = this.#parts;
    if (this.#isExpiryReported || !this.#inForce) return;
    const expiresAt = expiryOf(this.#inForce.cert);
    if (clock.now() < expiresAt) return;
    this.#isExpiryReported = true;
    events.emit('certificate.expired', {listener, path: paths.cert, expiresAt});
  }
}

async function readPair(paths: TlsPaths): Promise<Found> {
  const texts: Partial<KeyPair> = {};
  for (const file of ['cert', 'key', 'clientCa'] as const) {
    const path = paths[file];
    if (path === undefined) continue;
    try {
      texts[file] = await readFile(path, 'utf8');
    } catch (error) {
      return {path, problem: `cannot be read (${errorCode(error) ?? error})`};
    }
  }
  const pair = {cert: texts.cert ?? '', key: texts.key ?? '', clientCa: texts.clientCa};
  const fault = keyPairFault(pair);
  return fault ? {path: paths[fault.file] ?? '', problem: fault.problem} : {pair};
}
