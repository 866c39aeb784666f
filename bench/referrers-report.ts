import {table} from '../rig/page.ts';
import {count, exactMs, MIB, mebibytes, rate, seconds} from './numbers.ts';
import {type PartReport, part} from './part.ts';
import {
  ENTRIES,
  LISTED,
  measureReferrers,
  type PageTimes,
  REINDEXED,
  type ReferrersResult,
} from './referrers.ts';
import {target} from './targets.ts';

const MAX_REINDEX_S = 30;
const MAX_PAGE_MS = 25;
const MAX_COLD_TAG_MS = 20;
/** Of the rate of a warm manifest. */
const MIN_SHARE = 0.5;

export const REFERRERS = part({
  name: 'referrers',
  tools: ['wrk'],
  measure: measureReferrers,
  report: referrersReport,
});

function referrersReport(result: ReferrersResult): PartReport {
  const {reindex, firstPage, filtered, warmList, warmManifest, coldTag, errors} = result;
  const beyond = coldTag.time - coldTag.roundTrips;
  const of = (page: PageTimes) => Math.max(page.grown, page.same, page.anew);
  const most = {most: MAX_PAGE_MS};
  return {
    text: referrersTable(result),
    targets: [
      target({work: `reindex of ${count(REINDEXED)} manifests`, unit: 's'}, reindex.time / 1000, {
        most: MAX_REINDEX_S,
      }),
      target({work: `${count(LISTED)} referrers: first page, slowest`, unit: 'ms'}, of(firstPage), most),
      target(
        {work: `${count(LISTED)} referrers: filtered to a tenth, slowest`, unit: 'ms'},
        of(filtered),
        most,
      ),
      target({work: 'warm list of 10 referrers, rate', beside: 'a warm manifest'}, warmList / warmManifest, {
        least: MIN_SHARE,
      }),
      target({work: `cold list of ${ENTRIES}`, beside: 'two round trips', unit: 'ms'}, beyond, {
        most: MAX_COLD_TAG_MS,
      }),
    ],
    faults: errors > 0 ? [`warm lists: ${errors} requests failed`] : [],
  };
}

function referrersTable(result: ReferrersResult): string {
  const {reindex, firstPage, filtered, warmList, warmManifest, coldTag} = result;
  const times = ({grown, same, anew}: PageTimes) =>
    `${exactMs(same)}; ${exactMs(grown)} with one added, ${exactMs(anew)} rendered anew`;
  const page = `≤ ${MAX_PAGE_MS} ms`;
  return table(
    [
      ['', 'aim', 'backref'],
      [
        `reindex of ${count(REINDEXED)} manifests, beside the server`,
        `≤ ${MAX_REINDEX_S} s`,
        seconds(reindex.time),
      ],
      ['– peak resident memory of the server', 'bounded', mebibytes(reindex.peakMemory / MIB)],
      [`${count(LISTED)} referrers of one subject: first page`, page, times(firstPage)],
      ['– filtered to a tenth', page, times(filtered)],
      [
        'warm list of 10, of the rate of a warm manifest',
        `≥ ${MIN_SHARE} ×`,
        `${(warmList / warmManifest).toFixed(2)} × (${rate(warmList)} of ${rate(warmManifest)} req/s)`,
      ],
      [
        `cold list of ${ENTRIES} from a fallback tag, beyond two round trips (${exactMs(coldTag.roundTrips)} in all, without a proxy)`,
        `≤ ${MAX_COLD_TAG_MS} ms`,
        exactMs(coldTag.time - coldTag.roundTrips),
      ],
    ],
    'right',
  );
}
