import {agedReport} from '../registry/quota.ts';
import {cacheStatus, type Field, reportHeaders} from './answer.ts';
import type {PreparedAnswer} from './answer-table.ts';

/**
 * A prepared answer as the ordinary way would give it later, where only its age is another one. Pure.
 * @param now milliseconds since the epoch
 * @returns undefined where it may not be given then
 */
export function agedAnswer(answer: PreparedAnswer, now: number): PreparedAnswer | undefined {
  const {repeat} = answer;
  const {lifespan} = repeat;
  if (!lifespan || now < repeat.from || now >= lifespan.until) return undefined;
  const {steady, ...report} = agedReport(lifespan, now);
  const headers = reportHeaders(report);
  const fields = answer.fields.map(([name, value]): Field => [name, headers[name] ?? value]);
  return {...answer, fields, cache: cacheStatus(report), repeat: {...repeat, ...steady}};
}
