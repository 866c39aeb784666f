import type {Caller} from '../caller.ts';
import type {RepositoryName} from '../oci/name.ts';
import {type Upstream, UpstreamFailure, UpstreamRefusal, type UpstreamWriter} from '../upstream/port.ts';
import type {Approvals} from './approvals.ts';

interface Witnessed<T> {
  readonly answer: Promise<T>;
  readonly isAbsence: (answer: T) => boolean;
  readonly of?: 'content' | 'tags';
}

/**
 * An upstream that takes the callers' own logins, whose absences may be shared among callers. Many registries answer 404
 * to callers that may not pull: such an answer never takes a tag, a list or a referrer away from those who may.
 */
export function witnessedUpstream(upstream: Upstream, approvals: Approvals): Upstream {
  async function witnessed<T>(
    repository: RepositoryName,
    caller: Caller,
    {answer, isAbsence, of = 'content'}: Witnessed<T>,
  ): Promise<T> {
    const given = await answer;
    if (isAbsence(given)) await approvals.witness(repository, caller, of);
    return given;
  }
  const orAbsent = <T>(repository: RepositoryName, caller: Caller, answer: Promise<T>): Promise<T> =>
    witnessed(repository, caller, {answer, isAbsence: (given) => given === undefined});

  return {
    ...upstream,
    headManifest: (repository, reference, caller) =>
      orAbsent(repository, caller, upstream.headManifest(repository, reference, caller)),
    getManifest: (repository, reference, caller, cacheControl) =>
      orAbsent(repository, caller, upstream.getManifest(repository, reference, caller, cacheControl)),
    headBlob: (repository, digest, caller) =>
      orAbsent(repository, caller, upstream.headBlob(repository, digest, caller)),
    getBlob: (repository, digest, caller, range, demand) =>
      orAbsent(repository, caller, upstream.getBlob(repository, digest, caller, range, demand)),
    streamBlob: (repository, digest, caller, range) =>
      orAbsent(repository, caller, upstream.streamBlob(repository, digest, caller, range)),
    listTags: (repository, caller, spend) =>
      witnessed(repository, caller, {
        answer: upstream.listTags(repository, caller, spend),
        isAbsence: (tags) => tags === undefined || tags.length === 0,
        of: 'tags',
      }),
    listReferrers: (repository, subject, caller) =>
      witnessed(repository, caller, {
        answer: upstream.listReferrers(repository, subject, caller),
        isAbsence: (list) => typeof list === 'string' || list.descriptors.length === 0,
      }),
  };
}

/**
 * The same for what is deleted: what an upstream no longer has is deleted here as well, but not what it still shows to the
 * caller that may not delete it.
 */
export function witnessedWriter(upstream: Upstream & UpstreamWriter, approvals: Approvals): UpstreamWriter {
  async function witnessed(
    repository: RepositoryName,
    caller: Caller,
    {deletion, find}: {deletion: Promise<void>; find: () => Promise<unknown>},
  ): Promise<void> {
    try {
      await deletion;
    } catch (error) {
      if (!(error instanceof UpstreamRefusal && error.status === 404)) throw error;
      if ((await find()) !== undefined)
        throw new UpstreamFailure(
          'denied',
          upstream.host,
          `does not let this caller delete in ${repository}`,
        );
      await approvals.witness(repository, caller, 'content');
      throw error;
    }
  }
  return {
    ...upstream,
    async putManifest(repository, reference, manifest, caller) {
      const taken = await upstream.putManifest(repository, reference, manifest, caller);
      approvals.wrote(repository, caller, reference);
      return taken;
    },
    deleteManifest: (repository, reference, caller) =>
      witnessed(repository, caller, {
        deletion: upstream.deleteManifest(repository, reference, caller),
        find: () => upstream.headManifest(repository, reference, caller),
      }),
    deleteBlob: (repository, digest, caller) =>
      witnessed(repository, caller, {
        deletion: upstream.deleteBlob(repository, digest, caller),
        find: () => upstream.headBlob(repository, digest, caller),
      }),
  };
}
