import {constants} from 'node:os';

/** The code that the system or Node gives an error, e.g. `ENOENT`; undefined when there is none. */
export function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error && 'code' in error && typeof error.code === 'string')) return undefined;
  const number = UNNAMED.exec(error.code)?.[1];
  return (number === undefined ? undefined : NAMES.get(Number(number))) ?? error.code;
}

/** The code of an error that libuv has no name for. A used-up quota (EDQUOT) is one, a lost network file (ESTALE) another. */
const UNNAMED = /^Unknown system error -(\d+)$/;

/** Linux's, which Node does not list. */
const LINUX_NUMBERS = {EUCLEAN: 117, EREMOTEIO: 121};

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries({...LINUX_NUMBERS, ...constants.errno}).map(([name, number]) => [number, name]),
);

/** What operating systems report when the disk is full, a quota is used up, or the disk is mounted read-only. */
const REFUSED_BY_DISK: ReadonlySet<unknown> = new Set(['ENOSPC', 'EDQUOT', 'EROFS']);

/** Whether the disk took nothing because it is full or read-only: the same can be tried again when there is room. */
export const isRefusedByDisk = (error: unknown): boolean => REFUSED_BY_DISK.has(errorCode(error));
