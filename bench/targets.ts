/** What a figure should be. */
export interface Target {
  work: string;
  /** What backref is compared with; empty for a bound of its own. */
  beside: string;
  aim: string;
  /** The measured figure as text; empty if it was not measured. */
  figure: string;
  /** undefined when it was not measured. */
  isMet: boolean | undefined;
  /** The load that is profiled when the target is missed; its part knows it by this name. */
  load?: string;
}

export interface TargetOptions {
  work: string;
  beside?: string;
  /** Default a multiple. The empty text for a number of something. */
  unit?: string;
  load?: string;
}

/** Digits after the point; none for other units. */
const DIGITS: Readonly<Record<string, number>> = {'×': 2, s: 2, ms: 1};

/** Judges a figure by its lower or its upper bound. @param value undefined when it was not measured */
export function target(
  {work, beside = '', unit = '×', load}: TargetOptions,
  value: number | undefined,
  {least, most}: {least?: number; most?: number},
): Target {
  const bound = least ?? most ?? 0;
  const withUnit = (number: string) => (unit === '' ? number : `${number} ${unit}`);
  const isBelow = least === undefined;
  return {
    work,
    beside,
    aim: `${isBelow ? '≤' : '≥'} ${withUnit(`${bound}`)}`,
    figure: value === undefined ? '' : withUnit(value.toFixed(DIGITS[unit] ?? 0)),
    isMet: value === undefined ? undefined : isBelow ? value <= bound : value >= bound,
    ...(load === undefined ? {} : {load}),
  };
}
