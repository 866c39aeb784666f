import {readFile, writeFile} from 'node:fs/promises';
import {availableParallelism, cpus} from 'node:os';
import {fileURLToPath} from 'node:url';
import type {Versions} from './part.ts';
import type {Profile} from './profile/profile.ts';

/** The latest measurement of a part. */
export interface Measurement {
  /** ISO 8601, in UTC, to the minute. */
  at: string;
  machine: {cores: number; processor: string; node: string};
  versions: Versions;
  results: unknown;
  /** By the names of loads: those of missed targets. */
  profiles: Readonly<Record<string, Profile>>;
}

/** The latest measurements by the names of parts. */
export type Measurements = Readonly<Record<string, Measurement>>;

const FILE = fileURLToPath(new URL('./results.json', import.meta.url));

/** @throws Error when the file is not JSON */
export const readMeasurements = async (): Promise<Measurements> => JSON.parse(await readFile(FILE, 'utf8'));

export const writeMeasurements = (measurements: Measurements): Promise<void> =>
  writeFile(FILE, `${JSON.stringify(measurements, undefined, 1)}\n`);

/** When and where something is measured that ends now. */
export const hereAndNow = (): Pick<Measurement, 'at' | 'machine'> => ({
  at: new Date().toISOString().slice(0, 16).replace('T', ' '),
  machine: {
    cores: availableParallelism(),
    processor: cpus()[0]?.model.trim() || 'unknown processor',
    node: process.versions.node,
  },
});
