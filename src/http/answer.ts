import {type BareItem, serializeItem, Token} from 'structured-headers';
import type {CacheReport} from '../registry/freshness.ts';
import type {Ctx} from './routing.ts';

/** dist-spec, Warnings: at most 4,096 bytes over all of them. */
const WARNING_LIMIT = 4096;
const NAME = new Token('backref');

/** Says how the answer came about: `Cache-Status` (RFC 9211), `Age` (RFC 9111) and `Warning` (dist-spec, Warnings). */
export function explain(ctx: Ctx, report: CacheReport): void {
  ctx.state.report = report;
  ctx.set('Cache-Status', cacheStatus(report));
  if (report.age !== undefined) ctx.set('Age', String(report.age));
  if (report.warning !== undefined) ctx.set('Warning', warning(report.warning));
}

/** An RFC 9211 list member, as RFC 9651 writes it: `hit` and `fwd` exclude each other. */
export function cacheStatus({how, ttl, stored, collapsed, detail}: CacheReport): string {
  const parameters: [key: string, value: BareItem | undefined][] = [
    how === 'hit' ? ['hit', true] : ['fwd', new Token(how)],
    ['stored', stored || undefined],
    ['collapsed', collapsed || undefined],
    ['ttl', ttl],
    ['detail', detail === undefined ? undefined : new Token(detail)],
  ];
  const given = parameters.filter((entry): entry is [string, BareItem] => entry[1] !== undefined);
  return serializeItem(NAME, new Map(given));
}

/** dist-spec, Warnings: `299 - "text"`, no date, the text escaped as a quoted string (RFC 9110, section 5.6.4). */
export function warning(text: string): string {
  const printable = text.replaceAll(/[^\t\x20-\x7e]/g, '?');
  const escaped = printable.replaceAll(/["\\]/g, '\\$&').slice(0, WARNING_LIMIT - '299 - ""'.length);
  // A cut must not leave half of an escaped pair behind.
  return `299 - "${escaped.replace(/(?<!\\)((?:\\\\)*)\\$/, '$1')}"`;
}
