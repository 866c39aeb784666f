import {LRUCache} from 'lru-cache';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {Digest} from '../../oci/digest.ts';
import type {Edge} from '../../oci/referrers.ts';
import type {Metadata} from '../../storage/metadata.ts';
import type {Route} from '../namespace.ts';

/** How many referrers of one type stay with a subject: admission controllers refuse more than 50. */
export interface Attachments {
  /** Those that were attached here before the newest `keep`, the one of this edge being the newest. */
  overflow(route: Route, edge: Edge, keep: number): Promise<Digest[]>;
  /** Tells of a subject that has come to have many of the edge's type, once in a while. */
  count(route: Route, edge: Edge): Promise<void>;
}

export interface AttachmentsParts {
  metadata: Metadata;
  clock: Clock;
  events: Events;
}

/** Kyverno refuses more than 50 referrers. */
const CROWDED = 40;
/** Milliseconds for which a subject that was told of is not told of again. */
const SILENCE = 60 * 60_000;
const MAX_TOLD = 1000;
const BATCH = 1000;

export function createAttachments({metadata, clock, events}: AttachmentsParts): Attachments {
  const told = new LRUCache<string, number>({max: MAX_TOLD});
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
    async overflow(route, edge, keep) {
      const others = (await attachedHere(route, edge)).filter((digest) => digest !== edge.descriptor.digest);
      return others.slice(0, Math.max(0, others.length - (keep - 1)));
    },

    async count({repository}, edge) {
      const {subject} = edge;
      const [artifactType = ''] = typesOf(edge);
      const rows = await metadata.referrers(repository, subject, {types: [artifactType], limit: CROWDED});
      if (rows.length < CROWDED) return;
      const key = `${repository.registry}/${repository.name}@${subject} ${artifactType}`;
      if (clock.monotonic() - (told.get(key) ?? Number.NEGATIVE_INFINITY) < SILENCE) return;
      told.set(key, clock.monotonic());
      const {registry, name} = repository;
      events.emit('referrers.crowded', {registry, repository: name, subject, artifactType, atLeast: CROWDED});
    },
  };
}
