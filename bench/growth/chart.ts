/** A line of a panel; a figure that is missing leaves a gap. */
export interface Series {
  name: string;
  values: readonly (number | undefined)[];
}

/** One unit of measurement, with a vertical axis of its own. */
export interface Panel {
  name: string;
  series: readonly Series[];
}

export interface Chart {
  title: string;
  /** What varies, below the horizontal axis. */
  axis: string;
  /** The values of what varies, one beside the other. */
  steps: readonly string[];
  panels: readonly Panel[];
}

const [WIDTH, HEIGHT] = [760, 300];
const [LEFT, TOP, PANEL_HEIGHT, GAP, RIGHT] = [56, 62, 186, 64, 20];
const COLORS = [
  ['#0969da', '#539bf5'],
  ['#bc4c00', '#f0883e'],
  ['#1a7f37', '#57ab5a'],
  ['#8250df', '#b083f0'],
] as const;

/** Strong enough on white and on black. */
const STYLE = `
  text { font: 12px system-ui, sans-serif; fill: #57606a; }
  .title { font-size: 14px; font-weight: 600; }
  .grid { stroke: #8c959f; stroke-opacity: 0.3; }
  polyline { fill: none; stroke-width: 2.5; }
${COLORS.map(([light], index) => `  .line${index} { stroke: ${light}; } circle.line${index}, text.line${index} { stroke: none; fill: ${light}; }`).join('\n')}
  @media (prefers-color-scheme: dark) {
    text { fill: #adbac7; }
${COLORS.map(([, dark], index) => `    .line${index} { stroke: ${dark}; } circle.line${index}, text.line${index} { stroke: none; fill: ${dark}; }`).join('\n')}
  }
`;

/** Figures against what varies, as an SVG image: a panel beside the other, each with an axis that begins at 0. */
export function drawChart({title, axis, steps, panels}: Chart): string {
  const width = (WIDTH - LEFT - RIGHT - GAP * (panels.length - 1)) / Math.max(1, panels.length);
  const drawn = panels.map((panel, index) =>
    drawPanel(panel, {left: LEFT + index * (width + GAP), width, axis, steps}),
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escaped(title)}">
<style>${STYLE}</style>
<text class="title" x="${LEFT}" y="18">${escaped(title)}</text>
${drawn.join('\n')}
</svg>
`;
}

const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');

interface Place extends Pick<Chart, 'axis' | 'steps'> {
  left: number;
  width: number;
}

function drawPanel({name, series}: Panel, {left, width, axis, steps}: Place): string {
  const top = axisTop(series.flatMap(({values}) => values.filter((value) => value !== undefined)));
  const x = (index: number) => Math.round(left + (width * (index + 0.5)) / steps.length);
  const y = (value: number) => Math.round(TOP + PANEL_HEIGHT * (1 - value / top));
  const bottom = TOP + PANEL_HEIGHT;
  const lines = [`<text x="${left}" y="${TOP - 26}">${escaped(name)}</text>`];
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const at = y(top * share);
    lines.push(
      `<line class="grid" x1="${left}" x2="${left + width}" y1="${at}" y2="${at}"/>`,
      `<text x="${left - 6}" y="${at + 4}" text-anchor="end">${shortNumber(top * share)}</text>`,
    );
  }
  for (const [index, step] of steps.entries())
    lines.push(`<text x="${x(index)}" y="${bottom + 18}" text-anchor="middle">${escaped(step)}</text>`);
  lines.push(`<text x="${left + width / 2}" y="${bottom + 38}" text-anchor="middle">${escaped(axis)}</text>`);
  let nameAt = left;
  for (const [index, {name: what, values}] of series.entries()) {
    const points = values.flatMap((value, step) => (value === undefined ? [] : [[x(step), y(value)]]));
    lines.push(
      `<polyline class="line${index}" points="${points.map((point) => point.join(',')).join(' ')}"/>`,
      ...points.map(([cx, cy]) => `<circle class="line${index}" cx="${cx}" cy="${cy}" r="3.5"/>`),
      `<text class="line${index}" x="${nameAt}" y="${TOP - 10}">${escaped(what)}</text>`,
    );
    nameAt += 14 + 7 * what.length;
  }
  return lines.join('\n');
}

/** The smallest of 1, 2, 4, 5 and 8 times a power of ten that is not below any of the figures: a quarter of it is round. */
export function axisTop(values: readonly number[]): number {
  const highest = Math.max(0, ...values);
  if (highest === 0) return 1;
  const power = 10 ** Math.floor(Math.log10(highest));
  return [1, 2, 4, 5, 8, 10].map((factor) => factor * power).find((top) => top >= highest) ?? highest;
}

/** At most three digits: 950, 1.2 k, 12 k, 1.5 M, 0.25. */
export function shortNumber(value: number): string {
  for (const [unit, factor] of [
    ['M', 1e6],
    ['k', 1e3],
  ] as const)
    if (value >= factor) return `${Number((value / factor).toPrecision(3))} ${unit}`;
  return `${Number(value.toPrecision(3))}`;
}
