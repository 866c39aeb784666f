import type {Caller} from '../caller.ts';
import type {BlobSource} from '../oci/blob.ts';
import type {Descriptor} from '../oci/descriptor.ts';
import type {Algorithm, Digest} from '../oci/digest.ts';
import type {Reference, RepositoryName, Tag} from '../oci/name.ts';
import type {ByteRange} from '../oci/range.ts';
import type {SkippedReferrer} from '../oci/referrers.ts';

/** Why an upstream gave no usable answer. None of these means that something does not exist. */
export type FailureKind =
  | 'unreachable' // DNS, refused, reset, TLS
  | 'timeout' // no response headers within the time limit, or a body that arrives too slowly
  | 'status' // 5xx, or a status that does not answer the request
  | 'throttled' // 429
  | 'credentials' // our credentials were refused, or the credential breaker is open
  | 'denied' // 401 or 403 for this repository, although the token service issued a token
  | 'token' // the token service failed
  | 'loop' // the request returned to this server
  | 'protocol' // a faulty response: bad header, wrong bytes, an encoding that was not requested
  | 'open'; // the circuit breaker is open; no request was sent

/** What is left of an upstream's rate limit, as it reports it. */
export interface Quota {
  limit: number;
  remaining: number;
  /** Milliseconds in which `limit` requests are allowed; undefined when the upstream does not say. */
  window: number | undefined;
}

/** A rate limit, and for how many more milliseconds its window lasts. */
export type CurrentQuota = Quota & {readonly left: number};

/** An upstream could not be asked, or its response does not answer the request. */
export class UpstreamFailure extends Error {
  override readonly name = 'UpstreamFailure';
  readonly kind: FailureKind;
  /** The upstream's host, as in the configuration. */
  readonly host: string;
  /** Milliseconds until a retry makes sense; undefined when unknown. */
  readonly retryAfter: number | undefined;
  /** The status of the upstream's response, when that is the failure. */
  readonly status: number | undefined;

  constructor(
    kind: FailureKind,
    host: string,
    reason: string,
    options: {retryAfter?: number; status?: number; cause?: unknown} = {},
  ) {
    super(`${host}: ${reason}`, {cause: options.cause});
    this.kind = kind;
    this.host = host;
    this.retryAfter = options.retryAfter;
    this.status = options.status;
  }
}

/**
 * A response whose content shows that it is not what was asked for: part of it is missing or wrong. Another attempt may
 * bring the right one.
 */
export class SpoiledAnswer extends UpstreamFailure {}

/** Whether anybody is waiting for a download. Without a reader it continues, but yields connections to others. */
export interface Demand {
  /** True while somebody is waiting for its bytes. */
  readonly wanted: boolean;
  /** Calls `listener` after each change of `wanted`. @returns a function that stops this */
  watch(listener: () => void): () => void;
  /** When aborted, ends the wait for a connection or for the response's headers. */
  readonly stopping: AbortSignal | undefined;
}

/** A download that nobody was waiting for lost its connection to one with a reader. The rest can be requested later. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

export interface ManifestHead {
  /** The digest that the upstream claims, when it is a supported one. Not verified. */
  digest: Digest | undefined;
  mediaType: string | undefined;
  /** Bytes. */
  size: number | undefined;
}

export interface ManifestBody {
  bytes: Buffer;
  /** As in ManifestHead. */
  digest: Digest | undefined;
  mediaType: string | undefined;
  /** The strong ETag of this content, for `ifMatch`; undefined when the upstream sent none. */
  etag?: string;
}

export interface BlobBody {
  /** The length of the whole blob in bytes, from `Content-Length` or `Content-Range`. */
  size: number | undefined;
  /** The offset of the body's first byte; 0 when the upstream ignored the range. */
  start: number;
  /**
   * The bytes without content encoding. Throws UpstreamFailure when the connection breaks or idles, and Interrupted. End
   * it early with `return()`.
   */
  body: AsyncIterable<Uint8Array>;
  /** Ends the connection, also when the body was never read. Idempotent. */
  close(): void;
}

/** Bytes `start` to `end` of a blob, inclusive; without `end`, to the blob's end. */
export type RequestedRange = Pick<ByteRange, 'start'> & Partial<ByteRange>;

/** The list that an upstream's Referrers API returns for a subject. */
export interface ListedReferrers {
  descriptors: Descriptor[];
  /** Entries that cannot be listed here. Unless this is empty, `descriptors` is not the whole list. */
  skipped: SkippedReferrer[];
}

/**
 * The registry that is asked when the answer is not here. `undefined` means an authoritative 404; anything else that does
 * not answer the request throws an UpstreamFailure. Retries, tokens, limits and breakers are inside.
 */
export interface Upstream {
  readonly host: string;
  /** What it last reported of its rate limit, until the window has passed; undefined for an upstream that reports none. */
  quota(): CurrentQuota | undefined;
  headManifest(
    repository: RepositoryName,
    reference: Reference,
    caller: Caller,
  ): Promise<ManifestHead | undefined>;
  /** @param cacheControl `no-cache` when a copy from a cache in between is not acceptable. */
  getManifest(
    repository: RepositoryName,
    reference: Reference,
    caller: Caller,
    cacheControl?: 'no-cache',
  ): Promise<ManifestBody | undefined>;
  headBlob(
    repository: RepositoryName,
    digest: Digest,
    caller: Caller,
  ): Promise<{size: number | undefined} | undefined>;
  /**
   * Resolves when the response's headers have arrived. Read the body as fast as it arrives: until its end it holds one of
   * the connections that other bodies wait for.
   * @param demand while nobody wants the download, it waits for a connection without a time limit, and its body throws
   * Interrupted when a wanted one needs the connection; without `demand`, somebody is waiting
   */
  getBlob(
    repository: RepositoryName,
    digest: Digest,
    caller: Caller,
    range?: RequestedRange,
    demand?: Demand,
  ): Promise<BlobBody | undefined>;
  /** The same for a body that a client reads at its own pace. Such bodies have their own limit and delay only each other. */
  streamBlob(
    repository: RepositoryName,
    digest: Digest,
    caller: Caller,
    range?: RequestedRange,
  ): Promise<BlobBody | undefined>;
  /**
   * The tags of all pages, in the upstream's order. An incomplete list is a failure.
   * @param spend called before each page is requested; what it throws ends the list.
   */
  listTags(repository: RepositoryName, caller: Caller, spend?: () => void): Promise<string[] | undefined>;
  /** Whether the caller is shown any tag of the repository. An empty list, or an authoritative 404, is false. */
  hasTags(repository: RepositoryName, caller: Caller): Promise<boolean>;
  /**
   * Asks with the caller's login for nothing in particular, as a login does.
   * @throws UpstreamFailure `denied` when the login is refused
   */
  checkLogin(caller: Caller): Promise<void>;
  /**
   * All referrers of a subject, of all pages, in the order and with the descriptors of the upstream's Referrers API, except
   * `data`.
   * @returns `no-api` when there is no Referrers API here, which says nothing about referrers; `unknown-repository` when
   * the upstream says that the repository does not exist, which says nothing about the API.
   */
  listReferrers(
    repository: RepositoryName,
    subject: Digest,
    caller: Caller,
  ): Promise<ListedReferrers | 'no-api' | 'unknown-repository'>;
  /** Ends idle connections. */
  close(): void;
}

/** The upstream refuses a write. The reason is for whoever sent it. */
export class UpstreamRefusal extends UpstreamFailure {
  override readonly status: number;
  /** The code of the upstream's error body, unchanged. */
  readonly code: string | undefined;
  /** For an upload: the bytes that the upstream has, from `Range`; undefined when it did not say. */
  readonly offset: number | undefined;

  /**
   * @param what completes the sentence "refuses …".
   * @param refusal `message` is that of the upstream's error body, on one line; empty when there is none.
   */
  constructor(
    host: string,
    what: string,
    refusal: {status: number; code?: string | undefined; message: string; offset?: number | undefined},
  ) {
    const {status, code, message, offset} = refusal;
    const reason = [code, message].filter((part) => part !== undefined && part !== '').join(': ');
    super('status', host, `refuses ${what} (${status}${reason === '' ? '' : ` ${reason}`})`);
    this.status = status;
    this.code = code;
    this.offset = offset;
  }
}

/** What a new upload is to become. */
export interface NewUpload {
  /** A blob to take from another repository of the upstream, or from any if `from` is missing. */
  mount?: {digest: Digest; from?: RepositoryName};
  /** The algorithm of the digest that the upload will be closed with. */
  algorithm?: Algorithm;
}

/** An upload session at the upstream. */
export interface UpstreamUpload {
  /** The absolute URL for the next bytes. Opaque. */
  location: string;
  /** Bytes that the upstream has. */
  offset: number;
  /** The minimum size in bytes of each chunk except the last; undefined when the upstream did not say. */
  minChunk: number | undefined;
}

/** What is known about an upload. `offset` is the basis for counting when the upstream does not say its own. */
export type UploadPlace = Pick<UpstreamUpload, 'location' | 'offset'>;

/** Bytes to send to an upload. */
export interface OutgoingChunk {
  /** Bytes; undefined when the length is not known in advance. */
  length: number | undefined;
  /** Their position in the blob; undefined when the client did not say. */
  range: ByteRange | undefined;
  bytes: AsyncIterable<Uint8Array>;
}

/** A manifest to upload. */
export interface OutgoingManifest {
  mediaType: string;
  bytes: Buffer;
  /** Further tags for it; the upstream may ignore them. */
  tags?: readonly Tag[];
  /** The ETag of the manifest that it replaces; the upstream may ignore it. */
  ifMatch?: string | undefined;
}

/** The upstream's answer when it has stored a manifest. */
export interface ManifestTaken {
  /** A digest of the bytes, with an algorithm of the upstream's choice; undefined when it named none. */
  digest: Digest | undefined;
  /** From `OCI-Tag`. */
  tags: Tag[];
}

/** The upstream's answer to the last bytes of a blob. Not verified. */
export interface BlobTaken {
  /** It answered 201, as the specification requires. Otherwise ask whether it has the blob. */
  created: boolean;
  /** The digest that it named, when it is a supported one. */
  digest: Digest | undefined;
}

/**
 * The registry that is written to. A write that was not done throws an UpstreamFailure; when the upstream itself refuses
 * it (4xx, except 401, 403 and 429), an UpstreamRefusal.
 */
export interface UpstreamWriter {
  /** Uploads a blob unless the upstream has it. */
  pushBlob(repository: RepositoryName, blob: BlobSource, caller: Caller): Promise<void>;
  /** Begins an upload; with `mount`, the upstream may mount the blob instead. */
  beginUpload(
    repository: RepositoryName,
    wanted: NewUpload,
    caller: Caller,
  ): Promise<UpstreamUpload | 'mounted'>;
  /** Sends further bytes, without retries. */
  appendUpload(
    repository: RepositoryName,
    session: UploadPlace,
    chunk: OutgoingChunk,
    caller: Caller,
  ): Promise<UpstreamUpload>;
  /** @returns undefined when the upstream does not know the upload, or not any more. */
  uploadState(
    repository: RepositoryName,
    session: UploadPlace,
    caller: Caller,
  ): Promise<UpstreamUpload | undefined>;
  /** Sends the last bytes, if any, and closes the upload. */
  finishUpload(
    repository: RepositoryName,
    location: string,
    digest: Digest,
    chunk: OutgoingChunk,
    caller: Caller,
  ): Promise<BlobTaken>;
  cancelUpload(repository: RepositoryName, location: string, caller: Caller): Promise<void>;
  putManifest(
    repository: RepositoryName,
    reference: Reference,
    manifest: OutgoingManifest,
    caller: Caller,
  ): Promise<ManifestTaken>;
  deleteManifest(repository: RepositoryName, reference: Reference, caller: Caller): Promise<void>;
  deleteBlob(repository: RepositoryName, digest: Digest, caller: Caller): Promise<void>;
}
