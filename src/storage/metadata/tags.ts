import type {Digest} from '../../oci/digest.ts';
import type {Tag} from '../../oci/name.ts';
import type {AskTimes, Origin, RepositoryKey} from './repositories.ts';

export interface TagRecord {
  name: Tag;
  digest: Digest;
  origin: Origin;
  /** When the upstream was last asked successfully. */
  checkedAt: number;
  /** When the upstream first said that the tag is gone; undefined while it exists there. */
  goneAt: number | undefined;
}

export interface TagListRecord {
  /** As the upstream gave them, deduplicated and sorted by bytes. */
  names: string[];
  checkedAt: number;
}

export type TagChange =
  /** The tag points at this digest, checked at `at`; clears `goneAt`. */
  | {type: 'tag.put'; repository: RepositoryKey; name: Tag; digest: Digest; origin: Origin; at: number}
  /** The upstream said at `at` that the tag is gone; the first such time is kept, unless it lies after `at`. */
  | {type: 'tag.gone'; repository: RepositoryKey; name: Tag; at: number}
  /** Removes the tag of this origin. */
  | {type: 'tag.delete'; repository: RepositoryKey; name: Tag; origin: Origin}
  | {type: 'tag-list.put'; repository: RepositoryKey; names: string[]; at: number}
  /** The upstream has no such repository. */
  | {type: 'tag-list.delete'; repository: RepositoryKey};

export type TagPrecondition =
  /**
   * No later answer of the upstream about the tag, or about the list of tags, is known: none to a question asked after
   * `askedAt`. A time after `now` does not count: the clock has been set back since.
   */
  | ({type: 'tag.latest'; repository: RepositoryKey; name: Tag} & AskTimes)
  | ({type: 'tag-list.latest'; repository: RepositoryKey} & AskTimes)
  | {type: 'tag.is'; repository: RepositoryKey; name: Tag; origin: Origin; digest: Digest | undefined};

export interface TagReads {
  /** The local tag where there is one, else the upstream's. */
  tag(repository: RepositoryKey, name: Tag): Promise<TagRecord | undefined>;
  /** The names of the repository's tags that point at the manifest, of either origin. */
  tagsOn(repository: RepositoryKey, digest: Digest): Promise<Tag[]>;
  tagList(repository: RepositoryKey): Promise<TagListRecord | undefined>;
  /** The names of the repository's tags of origin `local` in byte order, those after `after`. */
  localTags(repository: RepositoryKey, page: {after?: string; limit: number}): Promise<Tag[]>;
}
