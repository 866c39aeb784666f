import {writeFile} from 'node:fs/promises';
import {fileURLToPath} from 'node:url';
import {table, writeSection} from '../rig/page.ts';
import {drawChart} from './growth/chart.ts';
import type {PartReport} from './part.ts';
import {PARTS} from './parts.ts';
import {profileTable} from './profile/profile.ts';
import type {Measurement, Measurements} from './results.ts';
import type {Target} from './targets.ts';
import type {WarmResult} from './warm.ts';
import {warmTable} from './warm-report.ts';

const PAGE = 'docs/performance.md';
/** The section of the page that lists the targets of all parts. */
const TARGETS = 'targets';

/** A generated section of a page. */
interface Section {
  page: typeof PAGE | 'README.md';
  name: string;
  text: string;
}

/** A generated file beside the page. */
interface Picture {
  /** In the folder of the page. */
  name: string;
  text: string;
}

/** All that is generated from the latest measurements. A part that has not been measured says so. */
export function renderPages(measurements: Measurements): {sections: Section[]; pictures: Picture[]} {
  const measured = PARTS.map((part) => {
    const measurement = measurements[part.name];
    const report = measurement && part.report(measurement.results, measurement.versions);
    return {name: part.name, measurement, report};
  });
  const sections = measured.map(({name, measurement, report}): Section => {
    const text = measurement && report ? partText(name, measurement, report) : 'Not measured yet.';
    return {page: PAGE, name, text};
  });
  const pictures = measured.flatMap(({name, report}) =>
    report?.chart ? [{name: `${name}.svg`, text: drawChart(report.chart)}] : [],
  );
  const targets = measured.flatMap(({name, measurement, report}) =>
    (report?.targets ?? []).map((one) => ({...one, name, at: measurement?.at ?? ''})),
  );
  const {warm} = measurements;
  return {
    sections: [
      {page: PAGE, name: TARGETS, text: targetsTable(targets)},
      ...sections,
      ...(warm ? [{page: 'README.md', name: 'bench', text: readmeText(warm)} as const] : []),
    ],
    pictures,
  };
}

/** Writes what `renderPages` gives. @throws Error when a page does not have a section */
export async function writePages(measurements: Measurements): Promise<void> {
  const {sections, pictures} = renderPages(measurements);
  for (const {page, name, text} of sections) await writeSection(page, name, text);
  for (const {name, text} of pictures)
    await writeFile(fileURLToPath(new URL(`../docs/${name}`, import.meta.url)), text);
}

/** What a part's section says: when it was measured, its tables, and profiles of what was missed. */
export function partText(name: string, measurement: Measurement, {text, chart, targets}: PartReport): string {
  const missed = new Set(targets.filter(({isMet}) => isMet === false).map(({load}) => load));
  const profiles = Object.entries(measurement.profiles).filter(([load]) => missed.has(load));
  return [
    measuredText(measurement),
    ...(chart ? [`![${chart.title}](${name}.svg)`] : []),
    text,
    ...(profiles.length > 0 ? ['Where it goes under the loads of missed targets:'] : []),
    ...profiles.map(([, profile]) => profileTable(profile)),
  ].join('\n\n');
}

const measuredText = ({at, machine: {cores, processor, node}}: Measurement): string =>
  `Measured on ${at} UTC on ${cores} cores (${processor}), with Node ${node}.`;

const readmeText = (warm: Measurement): string =>
  `${warmTable(warm.results as WarmResult[], warm.versions)}\n\n${measuredText(warm)}`;

function targetsTable(targets: readonly (Target & {name: string; at: string})[]): string {
  return table([
    ['work', 'beside', 'aim', 'here', '', 'part, measured'],
    ...targets.map(({work, beside, aim, figure, isMet, name, at}) => [
      work,
      beside,
      aim,
      figure,
      isMet === undefined ? 'not measured' : isMet ? 'met' : '**missed**',
      `${name}, ${at.slice(0, 10)}`,
    ]),
  ]);
}
