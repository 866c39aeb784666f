import {table} from '../../rig/page.ts';
import {ORDERS, type Scenario} from './comparison.ts';
import type {Figures} from './figures.ts';

/** A table for each scenario, as Markdown. */
export const evictionTables = (scenarios: readonly Scenario[]): string =>
  scenarios.map((scenario) => `${heading(scenario)}\n\n${scenarioTable(scenario)}`).join('\n\n');

const heading = ({name, pulls, workingSet}: Scenario): string =>
  `${name[0]?.toUpperCase()}${name.slice(1)}: ${pulls.toLocaleString('en-US')} pulls, working set ${Math.round(workingSet / 1e9).toLocaleString('en-US')} GB.`;

function scenarioTable({sizes}: Scenario): string {
  const cells = (figure: (figures: Figures) => string) =>
    ORDERS.map((order) => sizes.map(({figures}) => figure(figures[order])));
  const rows = (what: string, figure: (figures: Figures) => string) =>
    cells(figure).map((values, index) => [`${what}, ${ORDERS[index]}`, ...values]);
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  return table(
    [
      ['cache size', ...sizes.map(({cacheShare}) => `${100 * cacheShare} %`)],
      ...rows('complete pulls', ({completePulls}) => percent(completePulls)),
      ...rows('bytes from the cache', ({byteHits}) => percent(byteHits)),
      ...rows('broken promises', ({brokenPromises}) => brokenPromises.toLocaleString('en-US')),
    ],
    'right',
  );
}

/** What the page shows of both scenarios, with the plots beside it. */
export const evictionSection = (scenarios: readonly Scenario[]): string =>
  `A seeded workload of six weeks, modelled on published traces of registries (FAST'18, "Improving Docker Registry Design based on
Production Workload Analysis"), is simulated with the module that orders eviction in the server, beside an LRU of single
blobs (manifests are blobs too) and Belady's optimum, which knows when each blob is needed next. A complete pull asks no
upstream for content. A broken promise is a manifest that came from the cache while one of its blobs had been evicted. The scanner pulls
every image of the catalogue each night; its own pulls are not counted.

![The share of complete pulls against cache size](eviction-pulls.svg)

![The share of bytes from the cache against cache size](eviction-bytes.svg)

${evictionTables(scenarios)}`;
