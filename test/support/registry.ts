import type {Registry} from '../../src/registry/registries.ts';
import {createEmptyUpstream} from '../../src/upstream/empty.ts';
import type {Upstream} from '../../src/upstream/port.ts';

/** A registry in front of an upstream that has nothing but what `upstream` says. */
export const registryOver = (name: string, upstream: Partial<Upstream>): Registry => ({
  name,
  aliases: [],
  hosts: [],
  library: false,
  serves: () => true,
  upstream: {...createEmptyUpstream(name), ...upstream},
  hosted: false,
  approvals: undefined,
  push: {mode: 'deny'},
  maxManifest: 4 * 1024 * 1024,
  limits: {children: 50_000, depth: 8, blob: undefined, repository: undefined},
  tags: {ttl: 60_000, maxStale: 0, keepDeleted: 0, absentTtl: 0},
  tagRules: [],
  referrers: {mode: 'off', ttl: 60_000, maxStale: 0, prefetch: 'off'},
  rateLimitStatus: 503,
  quota: 'off',
});
