import {LRUCache} from 'lru-cache';
import type {Caller} from '../../caller.ts';
import type {Events} from '../../events.ts';
import type {Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {serializeIndex} from '../../oci/referrers.ts';
import type {Metadata, ReferrerDescriptor} from '../../storage/metadata.ts';
import {type CacheReport, outcomeOf} from '../answer.ts';
import {answering} from '../failure.ts';
import type {Route} from '../namespace.ts';
import type {TagOptions} from '../tags.ts';
import type {ReferrerLists} from './lists.ts';

export interface ReferrersQuery {
  /** Only these artifact types, any of them; the empty one is a referrer without a type. Undefined: no filter. */
  types: readonly string[] | undefined;
  /** Only what follows this position; from `next` of the page before. */
  after: number | undefined;
}

export interface ReferrersPage {
  /** An image index of the page's descriptors, oldest first. */
  readonly body: Buffer;
  /** The position that the next page follows, when there is one. It keeps its meaning while the list grows. */
  readonly next: number | undefined;
}

export interface ReferrersAnswer extends ReferrersPage {
  readonly report: CacheReport;
}

/** dist-spec, Listing Referrers, for registries with and without the API. */
export interface Referrers {
  /**
   * @throws OciError UNAVAILABLE, TOOMANYREQUESTS or DENIED when the list could not be had: never an empty list in
   * its place. UNSUPPORTED with 404 where the registry's `referrers.mode` is `off`.
   */
  list(
    route: Route,
    subject: Digest,
    query: ReferrersQuery,
    caller: Caller,
    options: TagOptions,
  ): Promise<ReferrersAnswer>;
  /** The whole list as one index, undefined when it is known to be empty. Throws as `list` does. */
  whole(
    route: Route,
    subject: Digest,
    caller: Caller,
  ): Promise<{body: Buffer; report: CacheReport} | undefined>;
}

/** A page's largest body: dist-spec asks registries to take manifests of at least this, so clients read it. */
const PAGE_BYTES = 4 * 1024 * 1024;
/** Rows that are read at a time. */
const BATCH = 2000;
/** Bytes of rendered pages that are held in memory. */
const HELD = 32 * 1024 * 1024;

export interface ReferrersParts {
  metadata: Metadata;
  lists: ReferrerLists;
  events: Events;
}

export function createReferrers({metadata, lists, events}: ReferrersParts): Referrers {
  const held = new LRUCache<string, ReferrersPage>({
    maxSize: HELD,
    // A key holds the client's filters, which may be longer than the page.
    sizeCalculation: ({body}, key) => body.length + key.length + 512,
  });

  async function rowsUpTo(
    {repository}: Route,
    subject: Digest,
    {types, after}: ReferrersQuery,
    bytes: number,
  ): Promise<{rows: ReferrerDescriptor[]; more: boolean}> {
    const rows: ReferrerDescriptor[] = [];
    let size = 0;
    let position = after;
    for (;;) {
      const batch = await metadata.referrerDescriptors(repository, subject, {
        limit: BATCH,
        ...(types ? {types} : {}),
        ...(position === undefined ? {} : {after: position}),
      });
      for (const row of batch) {
        size += Buffer.byteLength(row.descriptor) + 1;
        // A page holds at least one descriptor, however large.
        if (size > bytes && rows.length > 0) return {rows, more: true};
        rows.push(row);
      }
      if (batch.length < BATCH) return {rows, more: false};
      position = batch.at(-1)?.seq;
    }
  }

  async function render(route: Route, subject: Digest, query: ReferrersQuery): Promise<ReferrersPage> {
    const room = PAGE_BYTES - serializeIndex([]).length;
    const {rows, more} = await rowsUpTo(route, subject, query, room);
    return {
      body: serializeIndex(rows.map(({descriptor}) => descriptor)),
      next: more ? rows.at(-1)?.seq : undefined,
    };
  }

  /** A rendered page serves until its subject's list changes. */
  async function page(route: Route, subject: Digest, query: ReferrersQuery): Promise<ReferrersPage> {
    const {repository} = route;
    const version = (await metadata.referrerList(repository, subject))?.version ?? 0;
    const key = JSON.stringify([
      repository.registry,
      repository.name,
      subject,
      version,
      query.types,
      query.after,
    ]);
    const known = held.get(key);
    if (known) return known;
    const fresh = await render(route, subject, query);
    held.set(key, fresh);
    return fresh;
  }

  function served({repository: {registry, name: repository}}: Route, report: CacheReport): void {
    events.emit('referrers.served', {registry, repository, outcome: outcomeOf(report)});
  }

  return {
    list: (route, subject, query, caller, options) =>
      answering(route, async () => {
        if (route.registry.referrers.mode === 'off') throw switchedOff(route);
        const report = await lists.ready(route, subject, caller, options);
        served(route, report);
        return {...(await page(route, subject, query)), report};
      }),

    whole: (route, subject, caller) =>
      answering(route, async () => {
        if (route.registry.referrers.mode === 'off') throw switchedOff(route);
        const report = await lists.ready(route, subject, caller);
        const query = {types: undefined, after: undefined};
        const {rows} = await rowsUpTo(route, subject, query, Number.POSITIVE_INFINITY);
        return rows.length === 0
          ? undefined
          : {body: serializeIndex(rows.map(({descriptor}) => descriptor)), report};
      }),
  };
}

/** As from a registry without the API: clients then go on to the fallback tag (dist-spec, Backwards Compatibility). */
const switchedOff = ({registry}: Route): OciError =>
  new OciError('UNSUPPORTED', {
    status: 404,
    message: `the Referrers API is switched off for ${registry.name}: registries.${registry.name}.referrers.mode is "off"`,
  });
