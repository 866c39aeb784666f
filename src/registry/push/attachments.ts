import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {createLru} from '../../lru.ts';
import type {Digest} from '../../oci/digest.ts';
import type {Tag} from '../../oci/name.ts';
import type {Edge} from '../../oci/referrers.ts';
import {fullReference, type Metadata} from '../../storage/metadata.ts';
import type {Route} from '../namespace.ts';

/** Limits how many referrers of one type a subject keeps: admission controllers refuse more than 50. */
export interface Attachments {
  /**
   * The attachments that exceed the newest `keep` once this edge's is added as the newest: the oldest of those that may go.
   * @param mayGo of an attachment, by the tags that point at it
   */
  overflow(
    route: Route,
    edge: Edge,
    keep: number,
    mayGo: (tags: readonly Tag[]) => boolean,
  ): Promise<Digest[]>;
  /** Reports a subject that has many referrers of the edge's type, at most once an hour. */
  count(route: Route, edge: Edge): Promise<void>;
}

export interface AttachmentsParts {
  metadata: Metadata;
  clock: Clock;
  events: Events;
}

/** Referrers of one type from which a subject is reported. Kyverno refuses more than 50. */
const CROWDED = 40;
/** How long until a subject is reported again. */
const REPORT_INTERVAL_MS = 60 * 60_000;
/** Subjects whose last report is remembered. */
const MAX_REMEMBERED = 1000;
const BATCH = 1000;

export function createAttachments({metadata, clock, events}: AttachmentsParts): Attachments {
  const reportedAt = createLru<string, number>(MAX_REMEMBERED);
  const typesOf = ({descriptor}: Edge) => [descriptor.artifactType ?? ''];

  /** Oldest first. */
  async function attachedHere({repository}: Route, edge: Edge): Promise<Digest[]> {
    const digests: Digest[] = [];
    for (let after: number | undefined; ; ) {
      const page = {types: typesOf(edge), limit: BATCH, ...(after === undefined ? {} : {after})};
      const rows = await metadata.referrers(repository, edge.subject, page);
      for (const {digest} of rows) {
        if ((await metadata.manifest(repository, digest))?.origin === 'local') digests.push(digest);
      }
      if (rows.length < BATCH) return digests;
      after = rows.at(-1)?.seq;
    }
  }

  return {
    async overflow(route, edge, keep, mayGo) {
      const others = (await attachedHere(route, edge)).filter((digest) => digest !== edge.descriptor.digest);
      const excess = others.length - (keep - 1);
      const going: Digest[] = [];
      for (const digest of others) {
        if (going.length >= excess) break;
        if (mayGo(await metadata.tagsOn(route.repository, digest))) going.push(digest);
      }
      return going;
    },

    async count({repository}, edge) {
      const {subject} = edge;
      const [artifactType = ''] = typesOf(edge);
      const rows = await metadata.referrers(repository, subject, {types: [artifactType], limit: CROWDED});
      if (rows.length < CROWDED) return;
      const key = `${fullReference(repository, subject)} ${artifactType}`;
      if (clock.monotonic() - (reportedAt.get(key) ?? Number.NEGATIVE_INFINITY) < REPORT_INTERVAL_MS) return;
      reportedAt.set(key, clock.monotonic());
      const {registry, name} = repository;
      events.emit('referrers.crowded', {registry, repository: name, subject, artifactType, atLeast: CROWDED});
    },
  };
}
