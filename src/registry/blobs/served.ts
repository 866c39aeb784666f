import type {Events} from '../../events.ts';
import {outcomeOf} from '../freshness.ts';
import type {Generation, Generations} from '../generations.ts';
import type {Route} from '../namespace.ts';
import {repeatOf} from '../repeat.ts';
import type {BlobAnswer, BlobFound} from './answer.ts';
import type {Blobs} from './blobs.ts';

export interface ServedBlobsParts {
  generations: Pick<Generations, 'ofRepository' | 'ofBlob'>;
  events: Events;
}

/** The same blobs. Reports each that is served, and says which answers may be given again: those from memory or a file. */
export function reportServed(blobs: Blobs, {generations, events}: ServedBlobsParts): Blobs {
  async function serve<Found extends BlobFound & Partial<BlobAnswer>>(
    route: Route,
    taken: readonly Generation[],
    find: Promise<Found>,
  ): Promise<Found> {
    const found = await find;
    const {digest, report, bytes, file} = found;
    const {registry, name: repository} = route.repository;
    events.emit('blob.served', {registry, repository, digest, outcome: outcomeOf(report)});
    const served = {kind: 'blob', registry, repository, digest} as const;
    // Of any other blob, the store is asked each time.
    return bytes || file ? {...found, repeat: repeatOf(report, {content: taken}, served)} : found;
  }

  const generationsOf = ({repository}: Route, digest: BlobFound['digest']) => [
    generations.ofRepository(repository),
    generations.ofBlob(digest),
  ];

  return {
    get: (route, digest, caller, waiting) =>
      serve(route, generationsOf(route, digest), blobs.get(route, digest, caller, waiting)),
    async head(route, digest, caller) {
      const found = await serve(route, generationsOf(route, digest), blobs.head(route, digest, caller));
      // Each HEAD may have to renew the link of what was pushed here.
      return route.registry.push.mode === 'local' ? {...found, repeat: undefined} : found;
    },
  };
}
