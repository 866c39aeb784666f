import {table} from '../../rig/page.ts';

/** A share of what a profile is about. */
export interface ProfileRow {
  what: string;
  /** Of all, from 0 to 1; or MiB. */
  value: number;
  /** The largest of what it consists of, as text. */
  detail: string;
}

/** Where the time or the memory of a server goes under one load. */
export interface Profile {
  title: string;
  unit: 'share' | 'MiB';
  /** The largest first. */
  rows: readonly ProfileRow[];
}

export const profileTable = ({title, unit, rows}: Profile): string =>
  table([
    [title, unit === 'share' ? 'of the time' : 'MiB', 'most of it'],
    ...rows.map(({what, value, detail}) => [
      what,
      unit === 'share' ? percent(value) : `${Math.round(value)}`,
      detail,
    ]),
  ]);

const percent = (share: number): string => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
