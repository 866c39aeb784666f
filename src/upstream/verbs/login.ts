import type {Caller} from '../../caller.ts';
import type {RepositoryName} from '../../oci/name.ts';
import type {Ask} from '../api-request.ts';
import {discard} from '../transport/body.ts';
import {REFUSALS} from '../transport/reply.ts';

/**
 * Stands for the repository of a request that is about none, among the circuits of an upstream. No repository has this
 * name, so that none shares its circuit: names have no spaces (distribution-spec, Pulling Manifests).
 */
const NO_REPOSITORY = 'the login' as RepositoryName;

/**
 * Asks the endpoint at which clients log in (distribution-spec, end-1) with the caller's login.
 * @throws UpstreamFailure `denied` when the login is refused
 */
export const checkLogin = (ask: Ask, base: URL, caller: Caller): Promise<void> =>
  ask(
    {
      url: base,
      repository: NO_REPOSITORY,
      caller,
      permission: {isLogin: true},
      method: 'GET',
      headers: {},
      slot: 'heads',
      expected: REFUSALS,
      // Quay answers `true` as text/html.
      content: 'any',
    },
    async ({body}) => discard(body),
  );
