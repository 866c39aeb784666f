import {basename, dirname} from 'node:path';
import type {RotatingFileStream} from 'rotating-file-stream';
import type {Clock} from '../clock.ts';
import type {Config} from '../config.ts';
import type {EventMap, Events, RequestKind} from '../events.ts';
import {redact} from './lines.ts';

/** Records who asked for what. */
export interface AuditLog {
  /** Ends it when what was recorded is written. */
  close(): Promise<void>;
}

export interface AuditParts {
  events: Events;
  clock: Clock;
  /** Takes whole lines, for `stdout`. */
  print(line: string): void;
}

/** Machines send these all the time, and they name no content. */
const UNRECORDED: ReadonlySet<RequestKind> = new Set(['ping', 'metrics', 'probe']);
/** How long a file that could not be written is left alone. */
const RETRY_MS = 10_000;
/** Bytes that wait for a slow disk; further lines are lost, and the loss is reported. */
const MAX_WAITING_BYTES = 16 * 2 ** 20;

/**
 * Writes a line of JSON for each request that has ended, to a file that is rotated by size, or to stdout. What cannot be
 * written is lost and reported (`audit.failed`): an audit log that stops pulls would be an outage.
 */
export function createAuditLog({to, maxSize, keep}: Config['audit'], parts: AuditParts): AuditLog {
  const {events, clock, print} = parts;
  if (to === undefined) return {close: async () => {}};
  const file = to === 'stdout' ? undefined : new RotatedFile(to, maxSize, keep, parts);
  const record = (request: EventMap['request.end'][0]): void => {
    if (UNRECORDED.has(request.kind)) return;
    const line = `${JSON.stringify(entryOf(request, clock.now()))}\n`;
    if (file) file.write(line);
    else print(line);
  };
  events.on('request.end', record);
  return {
    async close() {
      events.off('request.end', record);
      await file?.close();
    },
  };
}

/** The query of a request for a token may hold a credential, and nothing that an audit needs. */
function entryOf(request: EventMap['request.end'][0], now: number) {
  const {id, caller, client, action, method, url, registry, repository, digest, ...rest} = request;
  const {status, outcome, reason, bytes, received, userAgent} = rest;
  return {
    event: 'audit',
    time: new Date(now).toISOString(),
    id,
    caller,
    address: client,
    action,
    method,
    path: redact(url.split('?', 1)[0] ?? ''),
    registry,
    repository,
    digest,
    status,
    outcome,
    reason: reason && redact(reason),
    bytes,
    received,
    userAgent: userAgent && redact(userAgent),
  };
}

/** A file that is opened again after it could not be written. */
class RotatedFile {
  readonly #open: () => Promise<RotatingFileStream>;
  readonly #parts: AuditParts;
  #stream: Promise<RotatingFileStream> | undefined;
  #waitingBytes = 0;
  #lost = 0;
  #failure: unknown = new Error('the disk is too slow');
  #isPaused = false;

  constructor(path: string, maxSize: number, keep: number, parts: AuditParts) {
    this.#parts = parts;
    this.#open = async () => {
      // Loaded on first use: most servers have no audit log.
      const {createStream} = await import('rotating-file-stream');
      const options = {path: dirname(path), size: `${maxSize}B`, rotate: keep, mode: 0o600} as const;
      const stream = createStream(basename(path), options);
      stream.on('error', (error) => this.#failed(error));
      stream.on('warning', (error) => this.#failed(error));
      return stream;
    };
  }

  write(line: string): void {
    const bytes = Buffer.byteLength(line);
    if (this.#isPaused || this.#waitingBytes + bytes > MAX_WAITING_BYTES) {
      this.#lose();
      return;
    }
    this.#stream ??= this.#open();
    this.#waitingBytes += bytes;
    this.#stream
      .then(
        (stream) =>
          new Promise<void>((resolve, reject) =>
            stream.write(line, (error) => (error ? reject(error) : resolve())),
          ),
      )
      .catch((error: unknown) => this.#failed(error, 1))
      .finally(() => {
        this.#waitingBytes -= bytes;
      });
  }

  async close(): Promise<void> {
    const stream = await this.#stream?.catch(() => undefined);
    if (!stream || stream.destroyed) return;
    await new Promise<void>((resolve) => {
      stream.once('close', resolve);
      stream.once('error', () => resolve());
      stream.end(() => resolve());
    });
  }

  #failed(error: unknown, lost = 0): void {
    this.#stream = undefined;
    this.#failure = error;
    this.#lose(lost);
  }

  /** The first loss is reported with those of the next seconds, in which nothing is written. */
  #lose(lines = 1): void {
    this.#lost += lines;
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#parts.clock.after(RETRY_MS, () => {
      this.#parts.events.emit('audit.failed', {lost: this.#lost, error: this.#failure});
      this.#lost = 0;
      this.#isPaused = false;
    });
  }
}
