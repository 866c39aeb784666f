import type {FileHandle} from 'node:fs/promises';
import type {Piece} from '../spool.ts';
import type {ReadPool} from './read-pool.ts';

/**
 * The bytes from `start` up to, but not including, `end`, one read ahead of the consumer. A chunk is valid until the next
 * one is asked for; then its memory is used again.
 * @throws what the file system says, or an error when the file ends before `end`
 */
export const readRange = (
  file: FileHandle,
  start: number,
  end: number,
  pool: ReadPool,
): AsyncGenerator<Uint8Array, void, void> =>
  piecesInTurn(start, end, pool, (position) => readPiece(file, position, end, pool));

/** Reads what follows `position`, at least one byte and at most up to `end`, into memory of its own. */
export async function readPiece(
  file: FileHandle,
  position: number,
  end: number,
  pool: ReadPool,
): Promise<Piece> {
  const wanted = end - position;
  const buffer = pool.take(wanted);
  const release = () => pool.release(buffer);
  try {
    const length = Math.min(buffer.bytes.length, wanted);
    const {bytesRead} = await file.read(buffer.bytes, 0, length, position);
    if (bytesRead === 0) throw endedEarly(position, end);
    return {bytes: buffer.bytes.subarray(0, bytesRead), release};
  } catch (error) {
    release();
    throw error;
  }
}

export const endedEarly = (position: number, end: number): Error =>
  new Error(`the file ended at byte ${position}, before byte ${end}`);

/**
 * Gives the pieces from `start` to `end` one after the other, and gets one ahead while the pool has room.
 * @param next gets the piece that begins at a position
 */
export async function* piecesInTurn(
  start: number,
  end: number,
  pool: Pick<ReadPool, 'hasRoom'>,
  next: (position: number) => Promise<Piece>,
): AsyncGenerator<Uint8Array, void, void> {
  let ahead: Promise<Piece> | undefined;
  try {
    for (let position = start; position < end; ) {
      const {bytes, release} = await (ahead ?? next(position));
      ahead = undefined;
      try {
        position += bytes.length;
        if (position < end && pool.hasRoom) ahead = next(position);
        // A failure of what is got ahead belongs to the turn that awaits it.
        ahead?.catch(() => {});
        yield bytes;
      } finally {
        release();
      }
    }
  } finally {
    // The file may be closed once this iteration has ended, so nothing may still be reading it.
    const unused = await ahead?.catch(() => undefined);
    unused?.release();
  }
}
