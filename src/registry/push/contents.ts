import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Descriptor} from '../../oci/descriptor.ts';
import type {Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {edgeOf} from '../../oci/referrers.ts';
import type {Change, Precondition} from '../../storage/metadata.ts';
import type {Route} from '../namespace.ts';
import type {LocalPushPolicy} from '../registries.ts';
import type {EnsureLocal} from './ensure-local.ts';
import type {CheckedManifest} from './validate.ts';

/** What the content that a manifest refers to adds to the manifest's commit. */
export interface ContentTerms {
  /** Content of the upstream is kept from now on as if it had been pushed here. */
  readonly changes: readonly Change[];
  /** The blobs, and the content of the upstream, are still here. */
  readonly preconditions: readonly Precondition[];
  /** Descriptors whose size is not that of their content; none where `validate.sizes` refuses them. */
  readonly wrongSizes: readonly WrongSize[];
}

interface WrongSize {
  readonly digest: Digest;
  /** Bytes, as the descriptor says. */
  readonly declared: number;
  /** Bytes that the content has. */
  readonly actual: number;
}

export interface ContentsOptions {
  readonly validate: LocalPushPolicy['validate'];
  /** The manifest is a fallback tag's index over an upstream: the referrers that the upstream has stay its own. */
  readonly isFallbackIndex: boolean;
  readonly caller: Caller;
}

/** The content that a manifest refers to: it must be here, or is fetched, before the manifest is accepted. */
export interface Contents {
  /**
   * @throws OciError MANIFEST_BLOB_UNKNOWN for content that is neither here nor at the upstream; SIZE_INVALID for content
   * whose size differs from its descriptor, where `validate.sizes` is set
   */
  terms(route: Route, manifest: CheckedManifest, options: ContentsOptions): Promise<ContentTerms>;
}

/** Content that is looked up at the same time. Between two batches other requests run: 4 MiB have room for 40,000 descriptors. */
const CONCURRENCY = 16;
/** Digests that an error lists. */
const MAX_LISTED = 20;

export const createContents = (parts: {ensureLocal: EnsureLocal; clock: Clock}): Contents =>
  new ReferredContents(parts);

class ReferredContents implements Contents {
  readonly #ensureLocal: EnsureLocal;
  readonly #clock: Clock;

  constructor({ensureLocal, clock}: {ensureLocal: EnsureLocal; clock: Clock}) {
    this.#ensureLocal = ensureLocal;
    this.#clock = clock;
  }

  async terms(route: Route, manifest: CheckedManifest, options: ContentsOptions): Promise<ContentTerms> {
    const {facts, digest, known, unsupported} = manifest;
    const {validate} = options;
    if (!known) return NOTHING;
    const absent = [
      ...(validate.blobs ? unsupported.blobs : []),
      ...(validate.children ? unsupported.manifests : []),
    ];
    if (absent.length > 0) throw unknownContent(digest, absent);
    const blobs = await termsOfAll(validate.blobs ? facts.blobs : [], digest, (blob) =>
      this.#blobTerms(route, blob, options),
    );
    const children = await termsOfAll(validate.children ? facts.manifests : [], digest, (child) =>
      this.#childTerms(route, child, options),
    );
    const all = [...blobs, ...children];
    const wrongSizes = all.flatMap((each) => each.wrongSizes);
    if (validate.sizes) refuseWrongSizes(wrongSizes);
    return {
      changes: all.flatMap(({changes}) => changes),
      preconditions: all.flatMap(({preconditions}) => preconditions),
      wrongSizes,
    };
  }

  async #blobTerms(
    route: Route,
    blob: Descriptor,
    {caller}: ContentsOptions,
  ): Promise<ContentTerms | undefined> {
    const {digest} = blob;
    const {repository} = route;
    const held = await this.#ensureLocal.blob(route, digest, caller);
    if (!held) return undefined;
    const {size} = held;
    const link: Change = {
      type: 'blob.link',
      repository,
      digest,
      size,
      origin: 'local',
      at: this.#clock.now(),
    };
    return {
      changes: held.origin === 'local' ? [] : [link],
      preconditions: [{type: 'blob.held', repository, digest}],
      wrongSizes: wrongSize(blob, size),
    };
  }

  /** A child is usually a manifest; BuildKit's registry cache lists layers in an index. */
  async #childTerms(
    route: Route,
    child: Descriptor,
    options: ContentsOptions,
  ): Promise<ContentTerms | undefined> {
    const {repository} = route;
    const record = await this.#ensureLocal.manifest(route, child.digest, options.caller);
    if (!record) return this.#blobTerms(route, child, options);
    const wrongSizes = wrongSize(child, record.bytes.length);
    if (record.origin === 'local' || options.isFallbackIndex) return {...NOTHING, wrongSizes};
    const {digest, mediaType} = record;
    const edge = edgeOf(record);
    const at = this.#clock.now();
    return {
      changes: [{type: 'manifest.link', repository, digest, mediaType, edge, origin: 'local', at}],
      preconditions: [{type: 'manifest.linked', repository, digest}],
      wrongSizes,
    };
  }
}

const NOTHING: ContentTerms = {changes: [], preconditions: [], wrongSizes: []};

/** The terms of each, in batches; stops after the first batch in which content is missing. */
async function termsOfAll(
  descriptors: readonly Descriptor[],
  manifest: Digest,
  termsOf: (descriptor: Descriptor) => Promise<ContentTerms | undefined>,
): Promise<ContentTerms[]> {
  const wanted = distinct(descriptors);
  const terms: ContentTerms[] = [];
  for (let at = 0; at < wanted.length; at += CONCURRENCY) {
    const some = wanted.slice(at, at + CONCURRENCY);
    const found = await Promise.all(some.map(termsOf));
    const missing = some.filter((_, index) => found[index] === undefined).map(({digest}) => digest);
    if (missing.length > 0) throw unknownContent(manifest, missing);
    terms.push(...found.filter((each) => each !== undefined));
    await nextTurn();
  }
  return terms;
}

/** Content may be referred to twice; each size that is declared for it is checked. */
const distinct = (descriptors: readonly Descriptor[]): Descriptor[] => [
  ...new Map(
    descriptors.map((descriptor) => [`${descriptor.digest} ${descriptor.size}`, descriptor]),
  ).values(),
];

const wrongSize = ({digest, size}: Descriptor, actual: number): WrongSize[] =>
  size === actual ? [] : [{digest, declared: size, actual}];

/** @throws OciError SIZE_INVALID */
function refuseWrongSizes([first]: readonly WrongSize[]): void {
  if (first) throw new OciError('SIZE_INVALID', {message: describeSize(first), detail: {...first}});
}

const describeSize = ({digest, declared, actual}: WrongSize): string =>
  `the manifest says that ${digest} has ${declared} bytes, but it has ${actual}: correct its descriptor`;

/** A warning for the client whose manifest was accepted; undefined where all sizes are right. */
export function sizeWarning(wrongSizes: readonly WrongSize[]): string | undefined {
  const [first, ...others] = wrongSizes;
  if (!first) return undefined;
  return `${describeSize(first)}${others.length > 0 ? `; ${others.length} more with a wrong size` : ''}`;
}

/** dist-spec, Pushing Manifests: the content that a manifest refers to is pushed before it. */
export function unknownContent(manifest: Digest, missing: readonly string[]): OciError {
  const digests = missing.slice(0, MAX_LISTED);
  return new OciError('MANIFEST_BLOB_UNKNOWN', {
    message: `${manifest} refers to content that this repository does not have: ${digests.join(', ')}; push it first`,
    detail: {manifest, digests},
  });
}
