import type {Upstream} from './port.ts';

/**
 * The upstream of a hosted registry: it has nothing, and says so at once. Each answer is an authoritative absence;
 * its list of referrers is whole and empty.
 * @param name the registry's, which is told where an upstream's host would be.
 */
export const createNowhere = (name: string): Upstream => ({
  host: name,
  headManifest: async () => undefined,
  getManifest: async () => undefined,
  headBlob: async () => undefined,
  getBlob: async () => undefined,
  streamBlob: async () => undefined,
  listTags: async () => undefined,
  listReferrers: async () => ({descriptors: [], skipped: []}),
  close: () => {},
});
