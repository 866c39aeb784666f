import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Descriptor} from '../../oci/descriptor.ts';
import type {Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {edgeOf} from '../../oci/referrers.ts';
import type {Change, Precondition} from '../../storage/metadata.ts';
import type {Route} from '../namespace.ts';
import type {LocalPush} from '../registries.ts';
import type {EnsureLocal} from './ensure-local.ts';
import type {CheckedManifest} from './validate.ts';

/** What belongs into the commit of a manifest because of what it names. */
export interface ContentTerms {
  /** What came from the upstream for it is kept from then on as if it had been pushed here. */
  readonly changes: readonly Change[];
  /** Its blobs are still here, and so is what comes from the upstream. */
  readonly preconditions: readonly Precondition[];
  /** Its descriptors whose size is not that of their content; none where `validate.sizes` refuses them. */
  readonly wrongSizes: readonly WrongSize[];
}

interface WrongSize {
  readonly digest: Digest;
  /** Bytes, as the descriptor says. */
  readonly declared: number;
  /** Bytes that the content has. */
  readonly actual: number;
}

/** What a manifest names: it is here, or is fetched, before the manifest that promises it is taken. */
export interface Contents {
  /**
   * @param isFallbackIndex it lists referrers; those of the upstream stay the upstream's
   * @throws OciError MANIFEST_BLOB_UNKNOWN for what nobody has; SIZE_INVALID for what has another size than is named,
   * where `validate.sizes` asks for that
   */
  terms(
    route: Route,
    manifest: CheckedManifest,
    options: {validate: LocalPush['validate']; isFallbackIndex: boolean; caller: Caller},
  ): Promise<ContentTerms>;
}

/** Looked for side by side. Between two rounds others have their turn: a manifest of 4 MiB has room for 40,000 names. */
const CONCURRENCY = 16;
/** Digests that an error lists. */
const MAX_LISTED = 20;

export function createContents({ensureLocal, clock}: {ensureLocal: EnsureLocal; clock: Clock}): Contents {
  async function blobTerms(
    route: Route,
    blob: Descriptor,
    caller: Caller,
  ): Promise<ContentTerms | undefined> {
    const {digest} = blob;
    const {repository} = route;
    const held = await ensureLocal.blob(route, digest, caller);
    if (!held) return undefined;
    const {size, origin} = held;
    const link = {
      type: 'blob.link' as const,
      repository,
      digest,
      size,
      origin: 'local' as const,
      at: clock.now(),
    };
    return {
      changes: origin === 'local' ? [] : [link],
      preconditions: [{type: 'blob.held', repository, digest}],
      wrongSizes: wrongSize(blob, held.size),
    };
  }

  /** Most often a manifest; BuildKit's registry cache lists layers in an index. */
  async function childTerms(
    route: Route,
    child: Descriptor,
    caller: Caller,
    isFallbackIndex: boolean,
  ): Promise<ContentTerms | undefined> {
    const {repository} = route;
    const record = await ensureLocal.manifest(route, child.digest, caller);
    if (!record) return blobTerms(route, child, caller);
    const wrongSizes = wrongSize(child, record.bytes.length);
    if (record.origin === 'local' || isFallbackIndex) return {...NOTHING, wrongSizes};
    const {digest, mediaType} = record;
    const edge = edgeOf(record);
    return {
      changes: [
        {type: 'manifest.link', repository, digest, mediaType, edge, origin: 'local', at: clock.now()},
      ],
      preconditions: [{type: 'manifest.linked', repository, digest}],
      wrongSizes,
    };
  }

  return {
    async terms(route, {facts, digest, known, strangers}, {validate, isFallbackIndex, caller}) {
      if (!known) return NOTHING;
      const absent = [
        ...(validate.blobs ? strangers.blobs : []),
        ...(validate.children ? strangers.manifests : []),
      ];
      if (absent.length > 0) throw unknownContent(digest, absent);
      const blobs = await eachOf(validate.blobs ? facts.blobs : [], digest, (blob) =>
        blobTerms(route, blob, caller),
      );
      const children = await eachOf(validate.children ? facts.manifests : [], digest, (child) =>
        childTerms(route, child, caller, isFallbackIndex),
      );
      const all = [...blobs, ...children];
      const wrongSizes = all.flatMap((each) => each.wrongSizes);
      if (validate.sizes) refuseWrongSizes(wrongSizes);
      return {
        changes: all.flatMap(({changes}) => changes),
        preconditions: all.flatMap(({preconditions}) => preconditions),
        wrongSizes,
      };
    },
  };
}

const NOTHING: ContentTerms = {changes: [], preconditions: [], wrongSizes: []};

/** The terms of each, a few at a time; the first round in which something is missing is the last. */
async function eachOf(
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

/** The same content may be named twice, though not with two sizes. */
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
  `the manifest says that ${digest} has ${declared} bytes, and it has ${actual}: correct its descriptor`;

/** For the client whose manifest was taken all the same; undefined where nothing is wrong. */
export function sizeWarning(wrongSizes: readonly WrongSize[]): string | undefined {
  const [first, ...others] = wrongSizes;
  if (!first) return undefined;
  return `${describeSize(first)}${others.length > 0 ? `; and so for ${others.length} more` : ''}`;
}

/** dist-spec, Pushing Manifests: what a manifest names is pushed before it. */
export function unknownContent(manifest: Digest, missing: readonly string[]): OciError {
  const digests = missing.slice(0, MAX_LISTED);
  return new OciError('MANIFEST_BLOB_UNKNOWN', {
    message: `${manifest} names what this repository does not have: ${digests.join(', ')}; push that first`,
    detail: {manifest, digests},
  });
}
