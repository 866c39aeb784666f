import {CACHE_SHARES, ORDERS, type OrderName, type Scenario} from './comparison.ts';
import type {Figures} from './figures.ts';

export interface PlotOptions {
  title: string;
  figure: (figures: Figures) => number;
}

const [WIDTH, HEIGHT] = [760, 300];
const [LEFT, TOP, PANEL_WIDTH, PANEL_HEIGHT, GAP] = [48, 62, 316, 186, 54];
const GRID_STEP = 0.1;
/** Strong enough on white and on black. */
const STYLE = `
  text { font: 12px system-ui, sans-serif; fill: #57606a; }
  .title { font-size: 14px; font-weight: 600; }
  .grid { stroke: #8c959f; stroke-opacity: 0.3; }
  polyline { fill: none; stroke-width: 2.5; }
  .backref { stroke: #0969da; fill: #0969da; }
  .LRU { stroke: #bc4c00; fill: #bc4c00; }
  .optimum { stroke: #6e7781; fill: #6e7781; stroke-dasharray: 5 4; }
  circle { stroke: none; }
  polyline.backref, polyline.LRU, polyline.optimum { fill: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #adbac7; }
    .backref { stroke: #539bf5; fill: #539bf5; }
    .LRU { stroke: #f0883e; fill: #f0883e; }
    .optimum { stroke: #9198a1; fill: #9198a1; }
  }
`;

/** One figure against cache size as an SVG image: a panel for each scenario, a line for each order. */
export function plot(scenarios: readonly Scenario[], {title, figure}: PlotOptions): string {
  const all = scenarios.flatMap(({sizes}) =>
    sizes.flatMap(({figures}) => ORDERS.map((order) => figure(figures[order]))),
  );
  const lowest = Math.floor(Math.min(...all) / GRID_STEP) * GRID_STEP;
  const panels = scenarios.map((scenario, index) =>
    panel(scenario, {left: LEFT + index * (PANEL_WIDTH + GAP), lowest, figure}),
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${title}">
<style>${STYLE}</style>
<text class="title" x="${LEFT}" y="18">${title}</text>
${legend()}
${panels.join('\n')}
</svg>
`;
}

const legend = (): string =>
  ORDERS.map((order, index) => {
    const x = WIDTH - 290 + index * 95;
    return `<polyline class="${order}" points="${x},14 ${x + 22},14"/><text x="${x + 28}" y="18">${order}</text>`;
  }).join('\n');

interface PanelOptions {
  left: number;
  lowest: number;
  figure: PlotOptions['figure'];
}

function panel({name, sizes}: Scenario, {left, lowest, figure}: PanelOptions): string {
  const x = (index: number) => Math.round(left + (index * PANEL_WIDTH) / (CACHE_SHARES.length - 1));
  const y = (value: number) => Math.round(TOP + PANEL_HEIGHT * (1 - (value - lowest) / (1 - lowest)));
  const bottom = TOP + PANEL_HEIGHT;
  const lines = [`<text x="${left}" y="${TOP - 16}">${name}</text>`];
  for (let value = lowest; value < 1 + GRID_STEP / 2; value += GRID_STEP) {
    lines.push(
      `<line class="grid" x1="${left}" x2="${left + PANEL_WIDTH}" y1="${y(value)}" y2="${y(value)}"/>`,
      `<text x="${left - 6}" y="${y(value) + 4}" text-anchor="end">${Math.round(100 * value)} %</text>`,
    );
  }
  for (const [index, share] of CACHE_SHARES.entries()) {
    lines.push(`<text x="${x(index)}" y="${bottom + 18}" text-anchor="middle">${100 * share} %</text>`);
  }
  lines.push(
    `<text x="${left + PANEL_WIDTH / 2}" y="${bottom + 38}" text-anchor="middle">cache size, of the working set</text>`,
  );
  const value = (order: OrderName, index: number) => {
    const figures = sizes[index]?.figures[order];
    return figures ? figure(figures) : 0;
  };
  for (const order of [...ORDERS].reverse()) {
    const points = CACHE_SHARES.map((_, index) => `${x(index)},${y(value(order, index))}`);
    lines.push(`<polyline class="${order}" points="${points.join(' ')}"/>`);
    lines.push(
      ...points.map((point) => {
        const [cx, cy] = point.split(',');
        return `<circle class="${order}" cx="${cx}" cy="${cy}" r="3.5"/>`;
      }),
    );
  }
  return lines.join('\n');
}
