import {type AnyPart, part} from '../part.ts';
import {measureConnections, profileConnections} from './connections.ts';
import {measureManifests, profileManifests} from './manifests.ts';
import {measureMixed} from './mixed.ts';
import {measureGrowingLists} from './referrers.ts';
import {connectionsReport, listsReport, manifestsReport, mixedReport} from './report.ts';

/** What shows how cost grows. */
export const GROWTH_PARTS: readonly AnyPart[] = [
  part({
    name: 'growth-manifests',
    tools: ['wrk'],
    measure: measureManifests,
    report: manifestsReport,
    profile: profileManifests,
  }),
  part({
    name: 'growth-connections',
    tools: ['wrk', 'nginx'],
    measure: measureConnections,
    report: connectionsReport,
    profile: profileConnections,
  }),
  part({name: 'growth-referrers', tools: ['wrk'], measure: measureGrowingLists, report: listsReport}),
  part({name: 'mixed', tools: ['wrk'], measure: measureMixed, report: mixedReport}),
];
