import {errorCode} from '../../error-code.ts';
import type {BlobFiles} from '../blob-files.ts';
import {type BlobStore, StoreMissing} from '../blob-store.ts';
import {DiskFailed, type ReportDiskFailure} from '../disk.ts';
import type {Spool, Spools} from '../spool.ts';

/** How systems report a disk that fails, that is gone, and a network file system that has lost its server's file. */
const FAILURES: ReadonlySet<string> = new Set([
  'EIO',
  'EREMOTEIO',
  'ENODEV',
  'ENXIO',
  'ESTALE',
  'EBADMSG',
  'EUCLEAN',
]);

export interface WatchOptions {
  /** The folder, for the message. */
  path: string;
  report: ReportDiskFailure;
}

/** Turns the system's errors about a failing disk into DiskFailed, and reports each. Any other error stays as it is. */
type Translate = (error: unknown) => unknown;

const translateFor =
  ({path, report}: WatchOptions): Translate =>
  (error) => {
    // A store whose marker cannot be read counts as missing.
    const cause = error instanceof StoreMissing ? error.cause : error;
    const code = errorCode(cause);
    if (!(cause instanceof Error) || code === undefined || !FAILURES.has(code)) return error;
    const failure = new DiskFailed('blobs', {path, code, cause});
    report(failure);
    return error instanceof StoreMissing ? error : failure;
  };

/** The store, whose failing disk is reported, and told from other errors. */
export function watchStore(store: BlobStore, options: WatchOptions): BlobStore {
  const translate = translateFor(options);
  const watched = <T>(work: Promise<T>): Promise<T> => rethrowing(work, translate);
  return {
    check: () => watched(store.check()),
    checkUnchanged: () => watched(store.checkUnchanged()),
    stat: (digest) => watched(store.stat(digest)),
    pathOf: (digest) => store.pathOf(digest),
    open: (digest, range) => rethrowingEach(store.open(digest, range), translate),
    inspect: (digest) => rethrowingEach(store.inspect(digest), translate),
    publish: (digest, spool) => watched(store.publish(digest, spool)),
    delete: (digest) => watched(store.delete(digest)),
    setAside: (digest, origin) => watched(store.setAside(digest, origin)),
    expireSetAside: (before) => watched(store.expireSetAside(before)),
    bytesSetAside: () => watched(store.bytesSetAside()),
    dropSetAside: (bytes) => watched(store.dropSetAside(bytes)),
    list: (after) => rethrowingEach(store.list(after), translate),
  };
}

/** The same for the files of blobs. */
export function watchFiles(files: BlobFiles, options: WatchOptions): BlobFiles {
  const translate = translateFor(options);
  return {
    async open(file) {
      const blob = await rethrowing(files.open(file), translate);
      return {read: () => rethrowingEach(blob.read(), translate), close: () => blob.close()};
    },
    forget: (path) => files.forget(path),
    close: () => files.close(),
  };
}

/** The same for spools. */
export function watchSpools(spools: Spools, options: WatchOptions): Spools {
  const translate = translateFor(options);
  const watched = <T>(work: Promise<T>): Promise<T> => rethrowing(work, translate);
  return {
    open: async (key) => watchSpool(await watched(spools.open(key)), translate),
    remove: (key) => watched(spools.remove(key)),
    idleBytes: () => watched(spools.idleBytes()),
    sweep: (before, isUnderWay) => watched(spools.sweep(before, isUnderWay)),
  };
}

function watchSpool(spool: Spool, translate: Translate): Spool {
  const watched = <T>(work: Promise<T>): Promise<T> => rethrowing(work, translate);
  return {
    key: spool.key,
    path: spool.path,
    get size() {
      return spool.size;
    },
    get failure() {
      return translate(spool.failure);
    },
    append: (chunk) => watched(spool.append(chunk)),
    read: (start, end) => rethrowingEach(spool.read(start, end), translate),
    piece: (start, end) => watched(spool.piece(start, end)),
    flush: () => watched(spool.flush()),
    truncate: () => watched(spool.truncate()),
    close: () => watched(spool.close()),
    discard: () => watched(spool.discard()),
  };
}

async function rethrowing<T>(work: Promise<T>, translate: Translate): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw translate(error);
  }
}

async function* rethrowingEach<T>(items: AsyncIterable<T>, translate: Translate): AsyncGenerator<T, void> {
  try {
    yield* items;
  } catch (error) {
    throw translate(error);
  }
}
