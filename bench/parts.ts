import {COLD} from './cold-report.ts';
import {GROWTH_PARTS} from './growth/parts.ts';
import {LOGINS} from './logins.ts';
import type {AnyPart} from './part.ts';
import {REFERRERS} from './referrers-report.ts';
import {START} from './start.ts';
import {WARM} from './warm-report.ts';
import {WORKERS} from './workers.ts';

/** In the order in which a whole run measures them, and the page lists their targets. */
export const PARTS: readonly AnyPart[] = [START, COLD, WARM, WORKERS, LOGINS, REFERRERS, ...GROWTH_PARTS];
