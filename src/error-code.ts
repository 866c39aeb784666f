/** The code that Node gives an error, e.g. `ENOENT`; undefined when there is none. */
export const errorCode = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
