import type {EventMap} from '../../src/events.ts';
import {digestOf} from '../../src/oci/digest.ts';
import {parseName} from '../../src/oci/name.ts';

/** The digest of the manifest that `SAMPLE_REQUEST` is about. */
export const SAMPLE_DIGEST = digestOf(Buffer.from('a'));

/** A request that was answered from the cache, as logs are told of it. */
export const SAMPLE_REQUEST: EventMap['request.end'][0] = {
  id: 'r-123456789',
  method: 'GET',
  url: '/v2/app/manifests/latest?ns=docker.io',
  kind: 'manifest',
  status: 200,
  outcome: 'hit',
  reason: undefined,
  ms: 12.4,
  received: 0,
  bytes: 512,
  client: '10.0.0.7',
  userAgent: 'containerd/v1.7.2',
  caller: 'user:alice',
  action: 'pull',
  registry: 'docker.io',
  repository: parseName('library/app'),
  digest: SAMPLE_DIGEST,
  cache: 'backref;hit',
};
