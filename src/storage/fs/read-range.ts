import type {FileHandle} from 'node:fs/promises';
import type {ReadBuffers} from './buffers.ts';

/**
 * Gives the bytes of `start` up to and without `end`, one read ahead of its consumer.
 * @throws what the file system said, or an error when the file ends before `end`.
 */
export async function* readRange(
  file: FileHandle,
  start: number,
  end: number,
  buffers: ReadBuffers,
): AsyncGenerator<Uint8Array, void, void> {
  const read = (position: number) => {
    const length = Math.min(buffers.size(), end - position);
    return file.read(Buffer.allocUnsafeSlow(length), 0, length, position);
  };

  const leave = buffers.enter();
  let ahead: ReturnType<typeof read> | undefined;
  try {
    let position = start;
    if (position < end) ahead = read(position);
    while (ahead) {
      const {buffer, bytesRead} = await ahead;
      if (bytesRead === 0) throw new Error(`the file ended at byte ${position}, before byte ${end}`);
      position += bytesRead;
      ahead = position < end ? read(position) : undefined;
      // A failure of the read ahead belongs to the turn that awaits it.
      ahead?.catch(() => {});
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    // The file may be closed once this iteration has ended, so nothing may still be reading it.
    await ahead?.catch(() => {});
    leave();
  }
}
