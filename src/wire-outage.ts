import type {Clock} from './clock.ts';
import type {BlobLifecycle} from './registry/blobs/lifecycle.ts';
import {createReady} from './registry/maintenance/ready.ts';
import type {ReferrerLists} from './registry/referrers/lists.ts';
import type {Registries} from './registry/registries.ts';
import type {Storage} from './storage/open.ts';

interface OutageParts {
  storage: Storage;
  registries(): Registries;
  lifecycle: BlobLifecycle;
  lists: ReferrerLists;
  clock: Clock;
}

export type WiredOutage = ReturnType<typeof wireOutage>;

/** What gets images ready for an outage of their upstreams: a part of `wire`. */
export const wireOutage = ({storage: {metadata}, registries, lifecycle, lists, clock}: OutageParts) => ({
  ready: createReady({metadata, lifecycle, lists, registries, clock}),
});
