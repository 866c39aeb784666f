/** A body whose client goes on until the body is returned. */
export interface EndlessBody {
  readonly bytes: AsyncIterable<Uint8Array>;
  /** Whether its reader has said that it reads no further. */
  readonly isReturned: boolean;
}

/** @param piece gives the next bytes */
export function endlessBody(piece: () => Promise<Uint8Array>): EndlessBody {
  let isReturned = false;
  return {
    bytes: {
      [Symbol.asyncIterator]: () => ({
        next: async () => ({done: false, value: await piece()}),
        async return() {
          isReturned = true;
          return {done: true, value: undefined};
        },
      }),
    },
    get isReturned() {
      return isReturned;
    },
  };
}
