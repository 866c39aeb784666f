import type {Caller} from '../../caller.ts';
import type {Events} from '../../events.ts';
import {createLru} from '../../lru.ts';
import {OciError} from '../../oci/errors.ts';
import {type UploadId, unknownUpload} from '../../oci/upload.ts';
import type {UploadRecord} from '../../storage/metadata.ts';
import {
  type OutgoingChunk,
  UpstreamFailure,
  UpstreamRefusal,
  type UpstreamWriter,
} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';
import {withinLimit} from './content-limits.ts';
import {outOfOrder} from './errors.ts';
import type {OpenUpload} from './open-upload.ts';
import type {Chunk} from './push.ts';
import type {Uploads} from './uploads.ts';

/** The upstream's session of one upload. */
export type Session = NonNullable<UploadRecord['upstream']>;

/** The sessions in which upstreams receive uploads. The upstream alone knows how much of an upload it has. */
export interface UpstreamSessions {
  /** Records an upload whose session was just begun. On failure the session is cancelled: nobody could continue it. */
  record(
    route: Route,
    upload: Pick<UploadRecord, 'algorithm' | 'holder'> & {upstream: Session},
    caller: Caller,
  ): Promise<UploadRecord>;
  /** The session as the upstream reports it; undefined when the upstream does not know it. */
  ask(route: Route, record: UploadRecord, caller: Caller): Promise<Session | undefined>;
  /**
   * Sends a chunk to the upstream, and appends it to the local copy on the way.
   * @param request sends the outgoing chunk to the session
   * @throws OciError BLOB_UPLOAD_INVALID with 416 for a chunk that does not begin where the session ends;
   * BLOB_UPLOAD_UNKNOWN when the upstream does not know the session; then the upload is dropped here if it has ended
   */
  send<T>(
    route: Route,
    upload: OpenUpload,
    chunk: Chunk,
    caller: Caller,
    request: (session: Session, outgoing: OutgoingChunk) => Promise<T>,
  ): Promise<Sent<T>>;
  /** Records the session as the upstream reported it. */
  note(upload: OpenUpload, session: Session): Promise<void>;
}

export interface Sent<T> {
  readonly answer: T;
  /** The session before the chunk. */
  readonly session: Session;
  /** True while the local copy holds exactly what the upstream has. */
  readonly isCopyExact: boolean;
}

/** Uploads whose rows are known to be current, or outdated. */
const MAX_REMEMBERED = 10_000;

export const createUpstreamSessions = (parts: {uploads: Uploads; events: Events}): UpstreamSessions =>
  new RecordedSessions(parts);

class RecordedSessions implements UpstreamSessions {
  readonly #uploads: Uploads;
  readonly #events: Events;
  /**
   * Whether the upload's row has the offset that the upstream reported last. Absent after a restart, and after a request
   * that broke off: the upstream may have received more.
   */
  readonly #isRowCurrent = createLru<UploadId, boolean>(MAX_REMEMBERED);

  constructor({uploads, events}: {uploads: Uploads; events: Events}) {
    this.#uploads = uploads;
    this.#events = events;
  }

  async record(
    route: Route,
    upload: Pick<UploadRecord, 'algorithm' | 'holder'> & {upstream: Session},
    caller: Caller,
  ): Promise<UploadRecord> {
    try {
      return await this.#uploads.begin(route.repository, upload);
    } catch (error) {
      await this.#abandon(route, upload.upstream, caller);
      throw error;
    }
  }

  async ask(route: Route, record: UploadRecord, caller: Caller): Promise<Session | undefined> {
    const known = sessionOf(record);
    const session = await writerOf(route).uploadState(route.repository.name, known, caller);
    if (session) this.#isRowCurrent.set(record.id, true);
    return session && following(known, session);
  }

  async send<T>(
    route: Route,
    upload: OpenUpload,
    chunk: Chunk,
    caller: Caller,
    request: (session: Session, outgoing: OutgoingChunk) => Promise<T>,
  ): Promise<Sent<T>> {
    const session = await this.#sessionFor(route, upload, chunk, caller);
    const copy = copyOf(withinLimit(route, chunk, session.offset), upload, session);
    try {
      const answer = await request(session, copy.outgoing);
      return {answer, session, isCopyExact: copy.isExact};
    } catch (error) {
      this.#isRowCurrent.delete(upload.record.id);
      if (!(error instanceof UpstreamRefusal) || error.status !== 404) throw error;
      return dropUnknown(route, upload);
    }
  }

  async note(upload: OpenUpload, session: Session): Promise<void> {
    try {
      await upload.recordSession(session);
    } catch (error) {
      // The upstream is asked before the next chunk: bytes that are sent twice would be appended twice.
      this.#isRowCurrent.set(upload.record.id, false);
      throw error;
    }
  }

  /**
   * The session, once it ends where the chunk begins. Not every registry checks that (distribution 2 appends whatever
   * comes), so the upstream is asked before bytes are mixed up. It is also asked after a chunk that broke off, which the
   * local copy reveals even after a restart.
   */
  async #sessionFor(route: Route, upload: OpenUpload, {range}: Chunk, caller: Caller): Promise<Session> {
    const known = sessionOf(upload.record);
    const isCurrent = this.#isRowCurrent.get(upload.record.id) ?? upload.offset === known.offset;
    if (range === undefined || (range.start === known.offset && isCurrent)) return known;
    const session = await this.ask(route, upload.record, caller);
    if (!session) return dropUnknown(route, upload);
    await this.note(upload, session);
    if (range.start === session.offset) return session;
    throw outOfOrder(session.offset, range.start);
  }

  /** Cancels a session that nobody will continue, if the upstream allows it. */
  async #abandon(route: Route, {location}: Session, caller: Caller): Promise<void> {
    try {
      await writerOf(route).cancelUpload(route.repository.name, location, caller);
    } catch (error) {
      // The upstream's client reports failures of the upstream.
      if (error instanceof UpstreamFailure) return;
      this.#events.emit('background.failed', {task: 'cancel an upload at its upstream', error});
    }
  }
}

/** The writer of a registry that pushes through. @throws Error for any other registry: a fault of ours */
export function writerOf({registry}: Route): UpstreamWriter {
  if (registry.push.mode === 'through') return registry.push.writer;
  throw new Error(`registry ${registry.name} does not push through to its upstream`);
}

/** @throws OciError BLOB_UPLOAD_UNKNOWN for an upload that began before the registry was configured to push through */
export function sessionOf({id, upstream}: UploadRecord): Session {
  if (upstream) return upstream;
  throw unknownUpload(id);
}

/** Some registries give the minimum size of a chunk only when the upload begins. */
export const following = (known: Session, session: Session): Session => ({
  ...session,
  minChunk: session.minChunk ?? known.minChunk,
});

/** Ends here an upload that the upstream does not know. */
/**
 * Whether an upload has ended when the upstream does not know it. Where the callers' own logins decide, it may only be hidden
 * from this caller: then the upload stays for the one who began it, until it expires.
 */
export const hasEnded = ({registry}: Route): boolean => registry.approvals === undefined;

async function dropUnknown(route: Route, upload: OpenUpload): Promise<never> {
  if (hasEnded(route)) await upload.discard();
  throw unknownUpload(upload.record.id);
}

/** A chunk on its way to the upstream. */
interface Copy {
  readonly outgoing: OutgoingChunk;
  readonly isExact: boolean;
}

/** Each piece is appended to the local copy, while that is exact, and then sent on. The slower one sets the pace. */
function copyOf({length, range, bytes}: Chunk, upload: OpenUpload, {offset}: Session): Copy {
  let isExact = upload.offset === offset;
  async function append(piece: Uint8Array): Promise<void> {
    try {
      await upload.append(piece);
    } catch (error) {
      // An OciError means that the upload was cancelled. A failing disk costs only the copy.
      if (error instanceof OciError) throw error;
      isExact = false;
    }
  }
  // Not a generator: `return` on a generator that awaits its source waits for the source's next piece.
  function passing(): AsyncIterator<Uint8Array, void> {
    const source = bytes[Symbol.asyncIterator]();
    return {
      async next() {
        const next = await source.next();
        if (next.done) return {done: true, value: undefined};
        if (isExact) await append(next.value);
        return next;
      },
      async return() {
        await source.return?.();
        return {done: true, value: undefined};
      },
    };
  }
  return {
    outgoing: {length, range, bytes: {[Symbol.asyncIterator]: passing}},
    get isExact() {
      return isExact;
    },
  };
}
