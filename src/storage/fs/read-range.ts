import type {FileHandle} from 'node:fs/promises';
import type {ReadBuffers} from './buffers.ts';

/**
 * Gives the bytes of `start` up to and without `end`, one read ahead of its consumer. A chunk is valid until the next
 * one is asked for; then its memory is used again.
 * @throws what the file system said, or an error when the file ends before `end`.
 */
export async function* readRange(
  file: FileHandle,
  start: number,
  end: number,
  buffers: ReadBuffers,
): AsyncGenerator<Uint8Array, void, void> {
  const read = async (position: number) => {
    const wanted = end - position;
    const buffer = buffers.take(wanted);
    try {
      const {bytesRead} = await file.read(buffer, 0, Math.min(buffer.length, wanted), position);
      return {buffer, bytesRead};
    } catch (error) {
      buffers.give(buffer);
      throw error;
    }
  };

  const leave = buffers.enter();
  let ahead: ReturnType<typeof read> | undefined;
  try {
    let position = start;
    if (position < end) ahead = read(position);
    while (ahead) {
      const {buffer, bytesRead} = await ahead;
      ahead = undefined;
      try {
        if (bytesRead === 0) throw new Error(`the file ended at byte ${position}, before byte ${end}`);
        position += bytesRead;
        if (position < end) ahead = read(position);
        // A failure of the read ahead belongs to the turn that awaits it.
        ahead?.catch(() => {});
        yield buffer.subarray(0, bytesRead);
      } finally {
        buffers.give(buffer);
      }
    }
  } finally {
    // The file may be closed once this iteration has ended, so nothing may still be reading it.
    const unused = await ahead?.catch(() => undefined);
    if (unused) buffers.give(unused.buffer);
    leave();
  }
}
