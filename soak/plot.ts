import type {Sample} from './samples.ts';

interface Line {
  name: string;
  className: 'first' | 'second';
  value(sample: Sample): number;
}

interface Panel {
  title: string;
  top: number;
  unit: string;
  lines: readonly Line[];
}

const MIB = 2 ** 20;
const [WIDTH, HEIGHT] = [760, 400];
const [LEFT, PANEL_WIDTH, PANEL_HEIGHT] = [52, 690, 120];
const PANELS: readonly Panel[] = [
  {
    title: 'Memory',
    top: 40,
    unit: 'MiB',
    lines: [
      {name: 'resident', className: 'first', value: ({resident}) => resident / MIB},
      {name: 'heap in use', className: 'second', value: ({heap}) => heap / MIB},
    ],
  },
  {
    title: 'Open files and sockets',
    top: 230,
    unit: '',
    lines: [{name: 'descriptors', className: 'first', value: ({descriptors}) => descriptors}],
  },
];
/** Strong enough on white and on black. */
const STYLE = `
  text { font: 12px system-ui, sans-serif; fill: #57606a; }
  .title { font-size: 14px; font-weight: 600; }
  .grid { stroke: #8c959f; stroke-opacity: 0.3; }
  polyline { fill: none; stroke-width: 1.5; }
  .first { stroke: #0969da; }
  .second { stroke: #bc4c00; }
  @media (prefers-color-scheme: dark) {
    text { fill: #adbac7; }
    .first { stroke: #539bf5; }
    .second { stroke: #f0883e; }
  }
`;

/** Memory and descriptors over time as an SVG image. */
export const plotSamples = (samples: readonly Sample[]): string =>
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Memory and open files over time">
<style>${STYLE}</style>
${PANELS.map((panel) => drawPanel(panel, samples)).join('\n')}
</svg>
`;

function drawPanel({title, top, unit, lines}: Panel, samples: readonly Sample[]): string {
  const duration = samples.at(-1)?.second ?? 1;
  const highest = Math.max(...samples.flatMap((sample) => lines.map(({value}) => value(sample))));
  const scale = roundUp(highest);
  const bottom = top + PANEL_HEIGHT;
  const x = (second: number) => (LEFT + (PANEL_WIDTH * second) / duration).toFixed(1);
  const y = (value: number) => (bottom - (PANEL_HEIGHT * value) / scale).toFixed(1);
  const grid = [0, 0.5, 1].map((part) => {
    const at = y(part * scale);
    return `<line class="grid" x1="${LEFT}" x2="${LEFT + PANEL_WIDTH}" y1="${at}" y2="${at}"/>
<text x="${LEFT - 6}" y="${Number(at) + 4}" text-anchor="end">${part * scale}</text>`;
  });
  const minutes = Array.from({length: 6}, (_, index) => (index * duration) / 5).map(
    (second) =>
      `<text x="${x(second)}" y="${bottom + 18}" text-anchor="middle">${(second / 60).toFixed(1)} min</text>`,
  );
  const drawn = lines.map(({name, className, value}, index) => {
    const points = samples.map((sample) => `${x(sample.second)},${y(value(sample))}`).join(' ');
    const at = LEFT + PANEL_WIDTH - 220 + index * 110;
    return `<polyline class="${className}" points="${points}"/>
<polyline class="${className}" points="${at},${top - 14} ${at + 22},${top - 14}"/><text x="${at + 28}" y="${top - 10}">${name}</text>`;
  });
  const heading = `<text class="title" x="${LEFT}" y="${top - 10}">${title}${unit === '' ? '' : `, ${unit}`}</text>`;
  return [heading, ...grid, ...minutes, ...drawn].join('\n');
}

/** The next larger number of the form 1, 2 or 5 times a power of ten. */
function roundUp(value: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return ([1, 2, 5, 10].find((factor) => factor * power >= value) ?? 10) * power;
}
