import type {Descriptor} from '../../oci/descriptor.ts';
import type {Digest} from '../../oci/digest.ts';
import {distinctReferrers, type Edge} from '../../oci/referrers.ts';
import type {Change} from '../metadata.ts';
import type {ListKey, ReferrerWrites} from './referrer-writes.ts';
import {run, type Steps} from './steps.ts';

type ListPut = Extract<Change, {type: 'referrer-list.put'}>;

/** What comes with further referrers of a list. */
interface Growth {
  /** One that was there is not what it was, or is gone. */
  amended?: boolean;
  /** A complete answer of the upstream. @property at milliseconds since the epoch */
  answer?: {source: ListPut['source']; at: number} | undefined;
}

/** The steps of a commit that change what is known of referrers, each in a repository's row that exists. */
export interface ReferrerCommit {
  putEdge(repository: number, edge: Edge): Steps<void>;
  /** As `putEdge`, into a list whose own row may be lost or behind. @param at milliseconds since the epoch */
  restoreEdge(repository: number, edge: Edge, at: number): Steps<void>;
  putList(repository: number, list: ListPut): Steps<void>;
  /** Removes one referrer of one subject. */
  remove(repository: number, subject: Digest, digest: Digest): Steps<void>;
  /** Removes a manifest from the referrers of whatever subject. */
  removeAll(repository: number, digest: Digest): Steps<void>;
}

export function createReferrerCommit(writes: ReferrerWrites): ReferrerCommit {
  /** Renews the list's version: a referrer is not what it was, or is gone. */
  const amend = (key: ListKey) =>
    run(writes.touchList, {...key, nextSeq: 1, amended: 1, checkedAt: null, source: null});

  /** Renews the list's version, and makes room for `count` further referrers; gives the first one's `seq`. */
  function* grow(key: ListKey, count: number, {amended, answer}: Growth): Steps<number> {
    const [list] = yield* run(writes.touchList, {
      ...key,
      nextSeq: count + 1,
      amended: amended ? 1 : 0,
      checkedAt: answer?.at ?? null,
      source: answer?.source ?? null,
    });
    if (!list) throw new Error(`the list of the referrers of ${key.subject} could not be made`);
    return list.nextSeq - count;
  }

  function* putEdge(repository: number, {subject, descriptor}: Edge, growth: Growth = {}): Steps<void> {
    const key = {repository, subject};
    const content = {...contentOf(descriptor), source: 'content' as const};
    const [known] = yield* run(writes.referrer, {...key, digest: descriptor.digest});
    if (!known) {
      const seq = yield* grow(key, 1, growth);
      yield* run(writes.addReferrer, {...key, ...content, seq, digest: descriptor.digest, listed: 0});
      return;
    }
    if (known.source === 'content' && known.descriptor === content.descriptor) return;
    yield* run(writes.changeReferrer, {...key, ...content, seq: known.seq, listed: known.listed});
    yield* amend(key);
  }

  function* putList(repository: number, list: ListPut): Steps<void> {
    const {subject, source, descriptors, at, except} = list;
    const key = {repository, subject};
    const named = new Map(
      distinctReferrers(descriptors).map((descriptor) => [descriptor.digest, descriptor]),
    );
    const untouched = new Set(except);
    let amended = false;
    for (const row of yield* run(writes.listedReferrers, key)) {
      if (untouched.has(row.digest)) continue;
      const descriptor = named.get(row.digest);
      named.delete(row.digest);
      amended = (yield* settle(key, row, descriptor, source)) || amended;
    }
    const answer = at === undefined ? undefined : {source, at};
    let seq = yield* grow(key, named.size, {amended, answer});
    for (const [digest, descriptor] of named) {
      yield* run(writes.addReferrer, {...key, ...contentOf(descriptor), seq, digest, source, listed: 1});
      seq++;
    }
  }

  /**
   * What becomes of a referrer that is here when a complete answer names it with this descriptor, or does not. Tells
   * whether it is not listed as it was.
   */
  function* settle(
    key: ListKey,
    row: {seq: number; descriptor: string; source: string; listed: number},
    named: Descriptor | undefined,
    source: ListPut['source'],
  ): Steps<boolean> {
    const {seq} = row;
    const listed = named ? 1 : 0;
    if (row.source === 'content') {
      if (row.listed !== listed) yield* run(writes.markListed, {...key, seq, listed});
      return false;
    }
    if (!named) {
      yield* run(writes.removeReferrer, {...key, seq});
      return true;
    }
    const content = contentOf(named);
    if (row.source === source && row.descriptor === content.descriptor) return false;
    yield* run(writes.changeReferrer, {...key, ...content, seq, source, listed});
    return true;
  }

  return {
    putEdge,
    putList,

    *restoreEdge(repository, edge, at) {
      yield* run(writes.mendList, {repository, subject: edge.subject, version: at});
      // Rows may be lost as well, and who has read them cannot tell.
      yield* putEdge(repository, edge, {amended: true});
    },

    *remove(repository, subject, digest) {
      const key = {repository, subject};
      const [known] = yield* run(writes.referrer, {...key, digest});
      if (!known) return;
      yield* run(writes.removeReferrer, {...key, seq: known.seq});
      yield* amend(key);
    },

    *removeAll(repository, digest) {
      for (const {subject, seq} of yield* run(writes.subjectsOf, {repository, digest})) {
        yield* run(writes.removeReferrer, {repository, subject, seq});
        yield* amend({repository, subject});
      }
    },
  };
}

const contentOf = (descriptor: Descriptor) => ({
  artifactType: descriptor.artifactType ?? '',
  descriptor: JSON.stringify(descriptor),
});
