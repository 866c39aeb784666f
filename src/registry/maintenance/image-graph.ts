import {type Digest, isDigest} from '../../oci/digest.ts';
import type {Tag} from '../../oci/name.ts';
import {attachedTo} from '../../oci/referrers.ts';
import {fullName, type Origin, type RepositoryKey} from '../../storage/metadata.ts';
import {Adjacency, Column} from './column.ts';
import {createDigestNumbers, type DigestNumbers, NONE} from './digest-numbers.ts';

/** A repository's link to a manifest. Times in milliseconds since the epoch. */
export interface GraphLink {
  repository: RepositoryKey;
  digest: Digest;
  origin: Origin;
  linkedAt: number;
  lastAccess: number;
  uses: number;
  /** The cache's age at the last use. */
  age: number;
}

const LENGTH_OF_A_SHA256_DIGEST = 71;
/** Larger than the number of any digest: a repository and a digest make one key. */
const KEY_FACTOR = 2 ** 31;

/**
 * The manifests of all repositories and what belongs to what, as numbers: a link of a repository to a manifest has one
 * number, a digest has another. Links come first, then references, tags and edges.
 */
export class ImageGraph {
  readonly digests: DigestNumbers = createDigestNumbers();
  readonly origins: Origin[] = [];
  readonly linkedAt = new Column(Float64Array);
  readonly lastAccess = new Column(Float64Array);
  readonly uses = new Column(Int32Array);
  readonly ages = new Column(Float64Array);
  readonly #repositories: RepositoryKey[] = [];
  readonly #repositoryNumbers = new Map<string, number>();
  readonly #repositoryOf = new Column(Int32Array);
  readonly #digestOf = new Column(Int32Array);
  readonly #linkByKey = new Map<number, number>();
  /** By digest: 1 where some repository is linked to the manifest. */
  readonly #isLinked = new Column(Int32Array);
  /** From the digest of a manifest to those that it names. */
  readonly #references = new Adjacency();
  /** From link to link: referrers, and what an attached tag attaches. */
  readonly #attached = new Adjacency();
  readonly #tags = new Map<number, Tag[]>();
  /** By link: 1 where a tag names it that is not an attached tag of another manifest here. */
  readonly #hasOwnTag = new Column(Int32Array);
  /** The numbers of sha512 digests of manifests by the half that a fallback tag names. */
  readonly #byPrefix = new Map<string, number[]>();
  /** By link: the last walk that came there. */
  readonly #walkedBy = new Column(Int32Array);
  #walks = 0;

  /** The number of links. */
  get size(): number {
    return this.#digestOf.length;
  }

  addLink({repository, digest, origin, linkedAt, lastAccess, uses, age}: GraphLink): void {
    const link = this.size;
    const repositoryNumber = this.#numberOf(repository);
    const digestNumber = this.digests.add(digest);
    if (digest.length > LENGTH_OF_A_SHA256_DIGEST && this.#isLinked.at(digestNumber) === 0) {
      const prefix = digest.slice(0, LENGTH_OF_A_SHA256_DIGEST);
      this.#byPrefix.set(prefix, [...(this.#byPrefix.get(prefix) ?? []), digestNumber]);
    }
    this.#isLinked.set(digestNumber, 1);
    this.#repositoryOf.set(link, repositoryNumber);
    this.#digestOf.set(link, digestNumber);
    this.#linkByKey.set(repositoryNumber * KEY_FACTOR + digestNumber, link);
    this.origins.push(origin);
    this.linkedAt.set(link, linkedAt);
    this.lastAccess.set(link, lastAccess);
    this.uses.set(link, uses);
    this.ages.set(link, age);
  }

  /** Does nothing where no repository is linked to the manifest. */
  addReference({manifest, child}: {manifest: Digest; child: Digest}): void {
    const parent = this.digests.find(manifest);
    if (parent === NONE || this.#isLinked.at(parent) === 0) return;
    this.#references.add(parent, this.digests.add(child));
  }

  addTag({repository, name, digest}: {repository: RepositoryKey; name: Tag; digest: Digest}): void {
    const link = this.linkOf(repository, digest);
    if (link === NONE) return;
    const tags = this.#tags.get(link);
    if (tags) tags.push(name);
    else this.#tags.set(link, [name]);
    const prefix = attachedTo(name);
    const subjects = prefix === undefined ? [] : this.#beginningWith(repository, prefix);
    for (const subject of subjects) this.#attached.add(subject, link);
    if (!subjects.some((subject) => subject !== link)) this.#hasOwnTag.set(link, 1);
  }

  addEdge({repository, subject, digest}: {repository: RepositoryKey; subject: Digest; digest: Digest}): void {
    const [from, to] = [this.linkOf(repository, subject), this.linkOf(repository, digest)];
    if (from !== NONE && to !== NONE) this.#attached.add(from, to);
  }

  linkOf(repository: RepositoryKey, digest: Digest): number {
    const repositoryNumber = this.#repositoryNumbers.get(fullName(repository));
    const digestNumber = this.digests.find(digest);
    if (repositoryNumber === undefined || digestNumber === NONE) return NONE;
    return this.#linkByKey.get(repositoryNumber * KEY_FACTOR + digestNumber) ?? NONE;
  }

  repositoryOf(link: number): RepositoryKey {
    const repository = this.#repositories[this.#repositoryOf.at(link)];
    if (!repository) throw new RangeError(`there is no link ${link}`);
    return repository;
  }

  digestOf(link: number): Digest {
    return this.digests.digestOf(this.#digestOf.at(link));
  }

  tagsOf(link: number): readonly Tag[] {
    return this.#tags.get(link) ?? [];
  }

  hasOwnTag(link: number): boolean {
    return this.#hasOwnTag.at(link) === 1;
  }

  /** The numbers of the digests that the link's manifest names, in its order; perhaps one several times. */
  *referencesOf(link: number): Generator<number, void> {
    const references = this.#references;
    let position = references.first(this.#digestOf.at(link));
    while (position !== 0) {
      yield references.target(position);
      position = references.next(position);
    }
  }

  /** The links of the same repository that belong to this one: children, referrers and what is attached by name. */
  *belongingTo(link: number): Generator<number, void> {
    const repository = this.#repositoryOf.at(link) * KEY_FACTOR;
    for (const digest of this.referencesOf(link)) {
      if (this.#isLinked.at(digest) === 0) continue;
      const child = this.#linkByKey.get(repository + digest);
      if (child !== undefined && child !== link) yield child;
    }
    let position = this.#attached.first(link);
    while (position !== 0) {
      const other = this.#attached.target(position);
      if (other !== link) yield other;
      position = this.#attached.next(position);
    }
  }

  /**
   * A link and everything that belongs to it, recursively, each once: first the link itself, and each before what belongs
   * to it, unless tags attach manifests in a circle.
   */
  membersOf(link: number): number[] {
    this.#walks += 1;
    const finished: number[] = [];
    const path = [{link, rest: this.#enter(link)}];
    for (let step = path.at(-1); step; step = path.at(-1)) {
      const next = step.rest.pop();
      if (next === undefined) {
        finished.push(step.link);
        path.pop();
      } else if (this.#walkedBy.at(next) !== this.#walks) path.push({link: next, rest: this.#enter(next)});
    }
    return finished.reverse();
  }

  #enter(link: number): number[] {
    this.#walkedBy.set(link, this.#walks);
    return [...this.belongingTo(link)];
  }

  #numberOf(repository: RepositoryKey): number {
    const name = fullName(repository);
    const known = this.#repositoryNumbers.get(name);
    if (known !== undefined) return known;
    const number = this.#repositories.push(repository) - 1;
    this.#repositoryNumbers.set(name, number);
    return number;
  }

  #beginningWith(repository: RepositoryKey, prefix: string): number[] {
    const digests = isDigest(prefix)
      ? [prefix]
      : (this.#byPrefix.get(prefix) ?? []).map((number) => this.digests.digestOf(number));
    return digests.map((digest) => this.linkOf(repository, digest)).filter((link) => link !== NONE);
  }
}
