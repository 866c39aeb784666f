import {readFile} from 'node:fs/promises';
import {fileURLToPath} from 'node:url';
import test from 'ava';
import {renderPages} from '../../bench/page.ts';
import {PARTS} from '../../bench/parts.ts';
import {type Measurement, readMeasurements} from '../../bench/results.ts';

const read = (page: string): Promise<string> =>
  readFile(fileURLToPath(new URL(`../../${page}`, import.meta.url)), 'utf8');

/** The text between a section's markers. */
function sectionIn(page: string, name: string): string | undefined {
  return new RegExp(`<!-- ${name}:begin -->\n([^]*?)\n?<!-- ${name}:end -->`).exec(page)?.[1];
}

const logins = (token: number, profiles = {}): Measurement => ({
  at: '2026-11-29 21:00',
  machine: {cores: 2, processor: 'a processor', node: '24.0.0'},
  versions: {},
  results: [{work: 'manifest by digest', rates: {none: 100, token, basic: 50}, errors: 0}],
  profiles,
});

const textOf = (measurements: Parameters<typeof renderPages>[0], name: string) =>
  renderPages(measurements).sections.find((section) => section.name === name)?.text ?? '';

test('the pages show what the latest measurements give', async (t) => {
  const {sections, pictures} = renderPages(await readMeasurements());
  for (const {page, name, text} of sections) t.is(sectionIn(await read(page), name), text.trim(), name);
  for (const {name, text} of pictures) t.is(await read(`docs/${name}`), text, name);
});

test('each part has a section of the page', async (t) => {
  const page = await read('docs/performance.md');
  for (const {name} of PARTS) t.not(sectionIn(page, name), undefined, name);
});

test('a part is shown with its own time and machine, and the others stay as they are', (t) => {
  const measurements = {logins: logins(90)};
  t.regex(
    textOf(measurements, 'logins'),
    /^Measured on 2026-11-29 21:00 UTC on 2 cores \(a processor\), with Node 24\.0\.0\./,
  );
  t.is(textOf(measurements, 'warm'), 'Not measured yet.');
  t.regex(
    textOf(measurements, 'targets'),
    /\| a token checked on every request: manifest by digest \| without \| ≥ 0\.85 × \| 0\.90 × \| met \| logins, 2026-11-29 \|/,
  );
});
