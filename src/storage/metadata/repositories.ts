import type {Reference, RepositoryName} from '../../oci/name.ts';

/** `upstream`: a copy, which may be evicted. `local`: pushed here, never evicted. */
export type Origin = 'upstream' | 'local';

/** A repository as all layers name it: the configured registry and the name inside it. */
export interface RepositoryKey {
  registry: string;
  name: RepositoryName;
}

/** `registry/name`: the repository in one string, as the key of a map or of a shared question. */
export const fullName = ({registry, name}: RepositoryKey): string => `${registry}/${name}`;

/** `registry/name:tag` or `registry/name@digest`. */
export const fullReference = (repository: RepositoryKey, reference: Reference): string =>
  `${fullName(repository)}${reference.includes(':') ? '@' : ':'}${reference}`;

/** When the upstream was asked for what is committed, and when the commit is made. Milliseconds since the epoch. */
export interface AskTimes {
  askedAt: number;
  now: number;
}

export interface RepositoryReads {
  /** Names of one registry's repositories in byte order, those after `after`, at most `limit`. */
  repositories(registry: string, page: {after?: string; limit: number}): Promise<RepositoryName[]>;
  /** Whether anything is, or was, put into this repository. */
  hasRepository(repository: RepositoryKey): Promise<boolean>;
}
