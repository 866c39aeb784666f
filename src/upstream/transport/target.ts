import type {Caller} from '../../caller.ts';
import type {RepositoryName} from '../../oci/name.ts';

/** What is asked for, where, for whom. */
export interface Target {
  url: URL;
  repository: RepositoryName;
  caller: Caller;
}
