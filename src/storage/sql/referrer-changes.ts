import type {Descriptor} from '../../oci/descriptor.ts';
import type {Digest} from '../../oci/digest.ts';
import {distinctReferrers, type Edge} from '../../oci/referrers.ts';
import type {Change} from '../metadata.ts';
import type {Writes} from './metadata.ts';
import type {ListKey, ReferrerWrites} from './referrer-writes.ts';
import type {RepositoryIds} from './repositories.ts';
import {type ChangesOf, type PreconditionsOf, run, type Steps} from './statement.ts';

type ListPut = Extract<Change, {type: 'referrer-list.put'}>;

/** What happens to a list besides the addition of referrers. */
interface Growth {
  /** An existing referrer has changed or is gone. */
  amended?: boolean;
  /** A complete answer of the upstream. @property at milliseconds since the epoch */
  answer?: {source: ListPut['source']; at: number} | undefined;
}

export const referrerChanges = (
  writes: Writes,
  repositories: RepositoryIds,
): ChangesOf<'referrer'> & ChangesOf<'referrer-list'> => ({
  *'referrer-list.put'(list) {
    yield* putList(writes, yield* repositories.findOrCreate(list.repository), list);
  },

  'referrer.put': ({repository: key, edge, at}) =>
    repositories.inKnown(key, function* (repository) {
      const link = yield* run(writes.manifestLink, {repository, digest: edge.descriptor.digest});
      if (link.length === 0) return;
      yield* run(writes.mendList, {repository, subject: edge.subject, version: at});
      // Rows may be lost as well, which earlier readers of the list cannot know.
      yield* putEdge(writes, repository, edge, {amended: true});
    }),

  'referrer.delete': ({repository: key, subject, digest}) =>
    repositories.inKnown(key, function* (repository) {
      const [known] = yield* run(writes.referrer, {repository, subject, digest});
      if (!known) return;
      yield* run(writes.removeReferrer, {repository, subject, seq: known.seq});
      yield* amend(writes, {repository, subject});
    }),
});

export const referrerPreconditions = (
  writes: ReferrerWrites,
  repositories: RepositoryIds,
): PreconditionsOf<'referrer-list'> => ({
  'referrer-list.latest': (asked) =>
    repositories.isLatest(asked, (repository) =>
      run(writes.referrerListCheckedAt, {repository, subject: asked.subject}),
    ),
});

/** Lists a manifest among the referrers of its subject. */
export function* putEdge(
  writes: ReferrerWrites,
  repository: number,
  {subject, descriptor}: Edge,
  growth: Growth = {},
): Steps<void> {
  const key = {repository, subject};
  const content = {...contentOf(descriptor), source: 'content' as const};
  const [known] = yield* run(writes.referrer, {...key, digest: descriptor.digest});
  if (!known) {
    const seq = yield* grow(writes, key, 1, growth);
    yield* run(writes.addReferrer, {...key, ...content, seq, digest: descriptor.digest, listed: 0});
    return;
  }
  if (known.source === 'content' && known.descriptor === content.descriptor) return;
  yield* run(writes.changeReferrer, {...key, ...content, seq: known.seq, listed: known.listed});
  yield* amend(writes, key);
}

/** Removes a manifest from the referrers of whatever subject. */
export function* removeReferrer(writes: ReferrerWrites, repository: number, digest: Digest): Steps<void> {
  for (const {subject, seq} of yield* run(writes.subjectsOf, {repository, digest})) {
    yield* run(writes.removeReferrer, {repository, subject, seq});
    yield* amend(writes, {repository, subject});
  }
}

/**
 * Removes a manifest from the referrers of its own subject. The upstream still has it: the list is asked for again, and
 * where only the upstream says that the manifest refers to a subject, it stays on the list.
 */
export function* evictReferrer(writes: ReferrerWrites, repository: number, digest: Digest): Steps<void> {
  for (const {subject, seq} of yield* run(writes.ownSubjects, {repository, digest})) {
    yield* run(writes.removeReferrer, {repository, subject, seq});
    yield* forgetList(writes, {repository, subject});
  }
}

/** Forgets what the upstream has said of a subject's referrers. Those that are linked here stay on the list. */
export function* forgetList(writes: ReferrerWrites, key: ListKey): Steps<void> {
  yield* run(writes.removeUpstreamReferrers, key);
  yield* run(writes.unlistReferrers, key);
  const linked = yield* run(writes.anyReferrer, key);
  if (linked.length > 0) {
    yield* run(writes.forgetAnswer, key);
    return;
  }
  for (const {version, nextSeq} of yield* run(writes.deleteList, key)) {
    yield* run(writes.raiseListFloor, {version, seq: nextSeq});
  }
}

function* putList(writes: ReferrerWrites, repository: number, list: ListPut): Steps<void> {
  const {subject, source, descriptors, at, except} = list;
  const key = {repository, subject};
  const named = new Map(distinctReferrers(descriptors).map((descriptor) => [descriptor.digest, descriptor]));
  const untouched = new Set(except);
  let amended = false;
  for (const row of yield* run(writes.listedReferrers, key)) {
    if (untouched.has(row.digest)) continue;
    const descriptor = named.get(row.digest);
    named.delete(row.digest);
    amended = (yield* updateRow(writes, key, row, descriptor, source)) || amended;
  }
  const answer = at === undefined ? undefined : {source, at};
  let seq = yield* grow(writes, key, named.size, {amended, answer});
  for (const [digest, descriptor] of named) {
    yield* run(writes.addReferrer, {...key, ...contentOf(descriptor), seq, digest, source, listed: 1});
    seq++;
  }
}

/**
 * Updates an existing referrer to an answer of the upstream that names it with this descriptor, or does not name it.
 * @returns whether it has changed or is gone
 */
function* updateRow(
  writes: ReferrerWrites,
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

/** Renews the list's version: an existing referrer has changed or is gone. */
const amend = (writes: ReferrerWrites, key: ListKey) =>
  run(writes.touchList, {...key, nextSeq: 1, amended: 1, checkedAt: null, source: null});

/** Renews the list's version, and makes room for `count` further referrers. @returns the `seq` of the first one */
function* grow(
  writes: ReferrerWrites,
  key: ListKey,
  count: number,
  {amended, answer}: Growth,
): Steps<number> {
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

const contentOf = (descriptor: Descriptor) => ({
  artifactType: descriptor.artifactType ?? '',
  descriptor: JSON.stringify(descriptor),
});
