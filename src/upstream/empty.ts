import type {Upstream} from './port.ts';

/**
 * Creates the upstream of a hosted registry. It has no content: each answer is an authoritative 404, and its list of
 * referrers is complete and empty.
 * @param name the registry's, used in place of an upstream's host.
 */
export const createEmptyUpstream = (name: string): Upstream => ({
  host: name,
  quota: () => undefined,
  headManifest: async () => undefined,
  getManifest: async () => undefined,
  headBlob: async () => undefined,
  getBlob: async () => undefined,
  streamBlob: async () => undefined,
  listTags: async () => undefined,
  hasTags: async () => false,
  checkLogin: async () => {},
  listReferrers: async () => ({descriptors: [], skipped: []}),
  close: () => {},
});
