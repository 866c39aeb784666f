/** The code that Node gives an error, e.g. `ENOENT`; undefined when there is none. */
export const errorCode = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;

/** What operating systems report when the disk is full, a quota is used up, or the disk is mounted read-only. */
const REFUSED_BY_DISK: ReadonlySet<unknown> = new Set(['ENOSPC', 'EDQUOT', 'EROFS']);

/** Whether the disk took nothing because it is full or read-only: the same can be tried again when there is room. */
export const isRefusedByDisk = (error: unknown): boolean => REFUSED_BY_DISK.has(errorCode(error));
