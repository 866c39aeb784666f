/** Numbers as the tables show them. */
export const MIB = 1024 * 1024;
export const rate = (value: number): string => Math.round(value).toLocaleString('en-US');
export const count = (value: number): string => value.toLocaleString('en-US');
export const ms = (value: number): string => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
export const exactMs = (value: number): string => `${value.toFixed(1)} ms`;
export const mebibytes = (value: number): string => `${Math.round(value)} MiB`;
export const seconds = (milliseconds: number, digits = 1): string =>
  `${(milliseconds / 1000).toFixed(digits)} s`;
