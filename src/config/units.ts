/** The units of durations in milliseconds, largest first. */
const DURATION_UNITS = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
  ['ms', 1],
] as const;

/** How the longest lifetime of a tag is written, and how long that is: ten years, in milliseconds. */
export const FOREVER = 'forever';
export const FOREVER_MS = 3650 * 86_400_000;

/** The units of sizes in bytes, largest first. */
const SIZE_UNITS = [
  ['TiB', 2 ** 40],
  ['TB', 1e12],
  ['GiB', 2 ** 30],
  ['GB', 1e9],
  ['MiB', 2 ** 20],
  ['MB', 1e6],
  ['KiB', 2 ** 10],
  ['kB', 1e3],
  ['B', 1],
] as const;

type Units = readonly (readonly [unit: string, factor: number])[];

const QUANTITY = /^(\d+(?:\.\d+)?) ?([a-z]+)$/i;

function parseQuantity(text: string, units: Units): number | undefined {
  const [, amount, unit] = QUANTITY.exec(text) ?? [];
  const factor = units.find(([name]) => name.toLowerCase() === unit?.toLowerCase())?.[1];
  if (factor === undefined) return undefined;
  const quantity = Math.round(Number(amount) * factor);
  return Number.isSafeInteger(quantity) ? quantity : undefined;
}

function formatQuantity(quantity: number, units: Units): string {
  const [unit, factor] = units.find(([, size]) => quantity % size === 0) ?? ['', 1];
  return `${quantity / factor}${unit}`;
}

/**
 * Parses `500ms`, `60s`, `1.5m`, `12h`, `7d` or 0. Any other number needs a unit: it could mean seconds or
 * milliseconds.
 * @returns whole milliseconds, or undefined for anything else.
 */
export function parseDuration(value: unknown): number | undefined {
  if (value === 0 || value === '0') return 0;
  return typeof value === 'string' ? parseQuantity(value.trim(), DURATION_UNITS) : undefined;
}

/**
 * Parses `256MiB`, `1GB`, `1.5 GiB`, in any case, or a plain number of bytes.
 * @returns whole bytes, or undefined for anything else.
 */
export function parseSize(value: unknown): number | undefined {
  if (typeof value === 'number') return Number.isSafeInteger(value) && value >= 0 ? value : undefined;
  if (typeof value !== 'string') return undefined;
  const text = value.trim();
  return parseQuantity(/^\d+$/.test(text) ? `${text}B` : text, SIZE_UNITS);
}

/** A percentage with at most two decimals, so that it is written as it was read. */
const PERCENTAGE = /^(\d{1,3}(?:\.\d{1,2})?) ?%$/;

/** Parses `80%` or `2.5%`. @returns the percentage, from 0 to 100, or undefined for anything else. */
export function parsePercentage(value: unknown): number | undefined {
  const [, amount] = typeof value === 'string' ? (PERCENTAGE.exec(value.trim()) ?? []) : [];
  const percent = Number(amount);
  return percent <= 100 ? percent : undefined;
}

/** A percentage; `parsePercentage` reads it. */
export const formatPercentage = (percent: number): string => `${percent}%`;

/** Milliseconds, 0 or more, in the largest unit that needs no fraction; `parseDuration` reads them. */
export const formatDuration = (ms: number): string => (ms === 0 ? '0' : formatQuantity(ms, DURATION_UNITS));

/** A tag's lifetime in milliseconds, as a setting is written. */
export const formatLifetime = (ms: number): string => (ms === FOREVER_MS ? FOREVER : formatDuration(ms));

/** Bytes, 0 or more, in the largest unit that needs no fraction; `parseSize` reads them. */
export const formatSize = (bytes: number): string => (bytes === 0 ? '0' : formatQuantity(bytes, SIZE_UNITS));
