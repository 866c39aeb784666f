import type {Content} from '../rig/image.ts';
import type {Artifact, Catalog} from './catalog.ts';

/** The referrers of one subject. */
interface ReferrerSets {
  /** Those that a list must have. */
  sure: Set<string>;
  /** Those that it may have: their push was interrupted. */
  unsure: Set<string>;
}

/** What one repository of the server under test may serve, and what it must. */
export interface RepositoryModel {
  /** `alpha.test/app/3`, as clients name it. */
  readonly name: string;
  readonly registry: string;
  readonly contents: Map<string, Content>;
  /** Digests whose push was interrupted, or that were damaged on purpose: they may be missing. */
  readonly unsure: Set<string>;
  /** What a tag may point at; not `sure` when the tag may be missing. */
  readonly tags: Map<string, {allowed: Set<string>; sure: boolean}>;
  readonly referrers: Map<string, ReferrerSets>;
}

/** What was pushed, what upstreams have, and what each repository may serve. */
export interface Model {
  readonly repositories: ReadonlyMap<string, RepositoryModel>;
  repository(registry: string, name: string): RepositoryModel;
  /** Whether a registry needs no upstream for what was pushed to it. */
  isHosted(registry: string): boolean;
  /** Adds what an upstream has, as a registry serves it. */
  addCatalog(registry: string, catalog: Catalog): void;
  addUpstreamArtifact(registry: string, artifact: Artifact): void;
  /** Lets a tag of an upstream point at another manifest as well. */
  moved(registry: string, repository: string, tag: string, digest: string): void;
  /** Drops a repository that is not asked for any more. */
  forget(registry: string, repository: string): void;
  /** A push begins: from now on it may be there. */
  pushing(registry: string, artifact: Artifact): void;
  /** The manifest was accepted: from now on it must be there. */
  accepted(registry: string, artifact: Artifact): void;
  /** Everything that was accepted, and that nobody has begun to delete. */
  readonly pushes: readonly Pushed[];
  /** A deletion begins: from now on the manifest may be gone, and what only it needs may be collected. */
  deleting(pushed: Pushed): void;
  /** The deletion was accepted: from now on the manifest must be gone. */
  deleted(pushed: Pushed): void;
  /** Everything whose deletion was accepted. */
  readonly deletions: readonly Pushed[];
}

export interface Pushed {
  registry: string;
  artifact: Artifact;
}

/** @param hosted the registries without an upstream. */
export const createModel = (hosted: readonly string[]): Model => new RunModel(new Set(hosted));

class RunModel implements Model {
  readonly repositories = new Map<string, RepositoryModel>();
  readonly pushes: Pushed[] = [];
  readonly deletions: Pushed[] = [];
  readonly #hosted: ReadonlySet<string>;

  constructor(hosted: ReadonlySet<string>) {
    this.#hosted = hosted;
  }

  repository(registry: string, repository: string): RepositoryModel {
    const name = `${registry}/${repository}`;
    const known = this.repositories.get(name);
    if (known) return known;
    const made = {
      ...{name, registry, contents: new Map(), unsure: new Set<string>()},
      ...{tags: new Map(), referrers: new Map()},
    };
    this.repositories.set(name, made);
    return made;
  }

  isHosted(registry: string): boolean {
    return this.#hosted.has(registry);
  }

  addCatalog(registry: string, {images, referrers}: Catalog): void {
    for (const artifact of [...images, ...[...referrers.values()].flat()]) {
      this.addUpstreamArtifact(registry, artifact);
    }
  }

  addUpstreamArtifact(registry: string, artifact: Artifact): void {
    const repository = this.repository(registry, artifact.repository);
    for (const each of contentsOf(artifact)) repository.contents.set(each.digest, each);
    const {tag, manifest, subject} = artifact;
    if (subject === undefined) repository.tags.set(tag, {allowed: new Set([manifest.digest]), sure: true});
    else referrersOf(repository, subject).sure.add(manifest.digest);
  }

  moved(registry: string, repository: string, tag: string, digest: string): void {
    const {tags} = this.repository(registry, repository);
    const known = tags.get(tag);
    if (known) known.allowed.add(digest);
    else tags.set(tag, {allowed: new Set([digest]), sure: true});
  }

  forget(registry: string, repository: string): void {
    this.repositories.delete(`${registry}/${repository}`);
  }

  pushing(registry: string, artifact: Artifact): void {
    const repository = this.repository(registry, artifact.repository);
    for (const each of contentsOf(artifact)) {
      if (!repository.contents.has(each.digest)) repository.unsure.add(each.digest);
      repository.contents.set(each.digest, each);
    }
    const {tag, manifest, subject} = artifact;
    if (subject !== undefined) return void referrersOf(repository, subject).unsure.add(manifest.digest);
    const known = repository.tags.get(tag);
    if (known) known.allowed.add(manifest.digest);
    else repository.tags.set(tag, {allowed: new Set([manifest.digest]), sure: false});
  }

  accepted(registry: string, artifact: Artifact): void {
    const repository = this.repository(registry, artifact.repository);
    for (const {digest} of contentsOf(artifact)) repository.unsure.delete(digest);
    const {tag, manifest, subject} = artifact;
    if (subject === undefined) repository.tags.set(tag, {allowed: new Set([manifest.digest]), sure: true});
    else referrersOf(repository, subject).sure.add(manifest.digest);
    this.pushes.push({registry, artifact});
  }

  deleting(pushed: Pushed): void {
    const {registry, artifact} = pushed;
    const {manifest, subject} = artifact;
    const repository = this.repository(registry, artifact.repository);
    const isHere = (other: Pushed) =>
      other.registry === registry && other.artifact.repository === artifact.repository;
    const isDeleted = (other: Pushed) => isHere(other) && other.artifact.manifest.digest === manifest.digest;
    for (const each of this.pushes.filter(isDeleted)) {
      this.pushes.splice(this.pushes.indexOf(each), 1);
      repository.tags.set(each.artifact.tag, {allowed: new Set([manifest.digest]), sure: false});
    }
    const others = this.pushes.filter(isHere);
    const needed = new Set(others.flatMap((other) => contentsOf(other.artifact).map(({digest}) => digest)));
    for (const {digest} of contentsOf(artifact)) if (!needed.has(digest)) repository.unsure.add(digest);
    if (subject === undefined) return;
    const listed = referrersOf(repository, subject);
    listed.sure.delete(manifest.digest);
    listed.unsure.add(manifest.digest);
  }

  deleted(pushed: Pushed): void {
    this.deletions.push(pushed);
  }
}

export const contentsOf = ({manifest, children, blobs}: Artifact): Content[] => [
  manifest,
  ...children,
  ...blobs,
];

export function referrersOf({referrers}: RepositoryModel, subject: string): ReferrerSets {
  const known = referrers.get(subject);
  if (known) return known;
  const made = {sure: new Set<string>(), unsure: new Set<string>()};
  referrers.set(subject, made);
  return made;
}
