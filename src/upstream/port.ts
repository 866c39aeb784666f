import type {Caller} from '../caller.ts';
import type {BlobSource} from '../oci/blob.ts';
import type {Descriptor} from '../oci/descriptor.ts';
import type {Algorithm, Digest} from '../oci/digest.ts';
import type {Reference, RepositoryName, Tag} from '../oci/name.ts';
import type {ByteRange} from '../oci/range.ts';
import type {SkippedReferrer} from '../oci/referrers.ts';

/** Why an upstream gave no usable answer. None of these is an absence. */
export type FailureKind =
  | 'unreachable' // DNS, refused, reset, TLS
  | 'timeout' // the budget for response headers is spent, or a body comes too slowly
  | 'status' // 5xx, or a status that makes no sense here
  | 'throttled' // 429
  | 'credentials' // our credentials were refused, or the credential breaker is open
  | 'denied' // 401 or 403 for this repository, with a token that the realm gave
  | 'token' // the token service failed
  | 'loop' // the request came back to ourselves
  | 'protocol' // a broken answer: bad header, wrong bytes, an encoding we did not ask for
  | 'open'; // the circuit breaker is open: not asked at all

/** An upstream could not be asked, or answered with something that decides nothing. */
export class UpstreamFailure extends Error {
  override readonly name = 'UpstreamFailure';
  readonly kind: FailureKind;
  /** The upstream's host, as a person would look for it in the configuration. */
  readonly host: string;
  /** Milliseconds after which asking again makes sense, where that is known. */
  readonly retryAfter: number | undefined;
  /** The status of the upstream's answer, where that is what failed. */
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

/** Whether anybody waits for a download. The server owns it: it goes on without a reader, but not before its turn. */
export interface Demand {
  /** True while somebody waits for its bytes. */
  readonly wanted: boolean;
  /** Calls `listener` after each change of `wanted`. @returns what ends that */
  watch(listener: () => void): () => void;
  /** Ends its wait for a connection, and for the headers of the response. */
  readonly stopping: AbortSignal | undefined;
}

/** A download that nobody waited for gave up its connection to one that somebody waits for; the rest can be asked for. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

export interface ManifestHead {
  /** The digest that the upstream claims, when it is one we support. A claim, not a proof. */
  digest: Digest | undefined;
  mediaType: string | undefined;
  /** Bytes. */
  size: number | undefined;
}

export interface ManifestBody {
  bytes: Buffer;
  digest: Digest | undefined;
  mediaType: string | undefined;
  /** The validator of this very content, for `ifMatch`; undefined where the upstream gave none that is strong. */
  etag?: string;
}

export interface BlobBody {
  /** The whole blob's length in bytes, from `Content-Length` or `Content-Range`. */
  size: number | undefined;
  /** The offset of the body's first byte: 0 when the upstream ignored the range. */
  start: number;
  /**
   * Identity bytes. Throws UpstreamFailure when the connection breaks or idles, and Interrupted. End it early with
   * `return()`.
   */
  body: AsyncIterable<Uint8Array>;
  /** Ends the connection. Idempotent; also frees an answer whose body was never read. */
  close(): void;
}

/** Bytes `start` to `end` of a blob, both inclusive; without `end`, to the blob's end. */
export type RequestedRange = Pick<ByteRange, 'start'> & Partial<ByteRange>;

/** What an upstream's Referrers API lists for a subject. */
export interface ListedReferrers {
  descriptors: Descriptor[];
  /** What it names and cannot be listed here: with any of these, `descriptors` is not the whole list. */
  skipped: SkippedReferrer[];
}

/**
 * The registry that is asked when the answer is not here. `undefined` is an authoritative absence (404);
 * everything else that is no answer is an UpstreamFailure. Retries, tokens, pacing and breakers are inside.
 */
export interface Upstream {
  readonly host: string;
  headManifest(
    repository: RepositoryName,
    reference: Reference,
    caller: Caller,
  ): Promise<ManifestHead | undefined>;
  /** @param cacheControl `no-cache` where what a cache on the way holds would not do. */
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
   * Resolves when the response's headers are here. The body is to be read as fast as it comes: until its end it holds
   * one of the connections that other bodies wait for.
   * @param demand while nobody wants the download, it waits for a connection for as long as it takes, and its body ends
   * with Interrupted when a wanted one needs the connection; without it, somebody waits
   */
  getBlob(
    repository: RepositoryName,
    digest: Digest,
    caller: Caller,
    range?: RequestedRange,
    demand?: Demand,
  ): Promise<BlobBody | undefined>;
  /** The same for a body that a client reads at its own pace: until its end nothing but others like it waits for it. */
  streamBlob(
    repository: RepositoryName,
    digest: Digest,
    caller: Caller,
    range?: RequestedRange,
  ): Promise<BlobBody | undefined>;
  /**
   * The tags of all pages, as the upstream orders them; a list learned partly is a failure.
   * @param spend called before each page is asked for; what it throws ends the list.
   */
  listTags(repository: RepositoryName, caller: Caller, spend?: () => void): Promise<string[] | undefined>;
  /**
   * All referrers of a subject, of all pages, as the upstream's Referrers API orders and describes them, less `data`.
   * @returns `no-api` when there is no Referrers API here, which says nothing about referrers; `unknown-repository` when
   * the answer is that there is no such repository, which says nothing about the API either.
   */
  listReferrers(
    repository: RepositoryName,
    subject: Digest,
    caller: Caller,
  ): Promise<ListedReferrers | 'no-api' | 'unknown-repository'>;
  /** Ends idle connections. */
  close(): void;
}

/** The upstream's own answer to something that was written: a refusal, for whoever wrote it to hear. */
export class UpstreamRefusal extends UpstreamFailure {
  override readonly status: number;
  /** The code of its error body, as it stands there. */
  readonly code: string | undefined;
  /** What its error body says, on one line; empty when it says nothing. */
  readonly text: string;
  /** Of an upload: the bytes that it has, where it told (`Range`). */
  readonly offset: number | undefined;

  constructor(
    host: string,
    what: string,
    {status, code, text, offset}: {status: number; code?: string; text: string; offset?: number},
  ) {
    const said = [code, text].filter((part) => part !== undefined && part !== '').join(': ');
    super('status', host, `refuses ${what} (${status}${said === '' ? '' : ` ${said}`})`);
    this.status = status;
    this.code = code;
    this.text = text;
    this.offset = offset;
  }
}

/** A session of the upstream's in which a blob is uploaded. */
export interface UpstreamUpload {
  /** Where it wants the next bytes; absolute, and good for nothing but this. */
  location: string;
  /** Bytes that it has. */
  offset: number;
  /** Bytes that a chunk but the last must have at the least, where it told. */
  minChunk: number | undefined;
}

/** Where an upload stands as far as is known: what the upstream does not tell is counted from there. */
export type UploadPlace = Pick<UpstreamUpload, 'location' | 'offset'>;

/** Bytes on their way to an upload. */
export interface OutgoingChunk {
  /** Their number; undefined where it is not known before their end. */
  length: number | undefined;
  /** Their place, both ends inclusive, where the client told. */
  range: ByteRange | undefined;
  bytes: AsyncIterable<Uint8Array>;
}

/** What the upstream said when it took a manifest. */
export interface ManifestTaken {
  /** A digest of the bytes, by the algorithm of the upstream's choice; undefined where it named none. */
  digest: Digest | undefined;
  /** Of `OCI-Subject`. */
  subject: Digest | undefined;
  /** Of `OCI-Tag`. */
  tags: Tag[];
}

/** What the upstream said to the last bytes of a blob. Claims, not proofs. */
export interface BlobTaken {
  /** It answered 201, as the specification has it. Otherwise it may not have the blob: ask. */
  created: boolean;
  /** The digest that it named, when it is one that we support. */
  digest: Digest | undefined;
}

/**
 * The registry that is written to. Everything that is not done is an UpstreamFailure; what the upstream itself answers
 * to a write (4xx, except 401, 403 and 429), an UpstreamRefusal.
 */
export interface UpstreamWriter {
  /** Uploads a blob unless it is there. */
  pushBlob(repository: RepositoryName, blob: BlobSource, caller: Caller): Promise<void>;
  /** Begins an upload; with `mount`, the upstream may take the blob from another repository of its own instead. */
  beginUpload(
    repository: RepositoryName,
    wish: {mount?: {digest: Digest; from?: RepositoryName}; algorithm?: Algorithm},
    caller: Caller,
  ): Promise<UpstreamUpload | 'mounted'>;
  /** Sends further bytes, once: what fails is not sent again. */
  appendUpload(
    repository: RepositoryName,
    session: UploadPlace,
    chunk: OutgoingChunk,
    caller: Caller,
  ): Promise<UpstreamUpload>;
  /** undefined: the upstream knows no such upload (any more). */
  uploadState(
    repository: RepositoryName,
    session: UploadPlace,
    caller: Caller,
  ): Promise<UpstreamUpload | undefined>;
  /** Sends the last bytes, of which there may be none, and closes the upload. */
  finishUpload(
    repository: RepositoryName,
    location: string,
    digest: Digest,
    chunk: OutgoingChunk,
    caller: Caller,
  ): Promise<BlobTaken>;
  cancelUpload(repository: RepositoryName, location: string, caller: Caller): Promise<void>;
  /**
   * @param manifest with further tags for it, and with the validator of what it is to take the place of; the upstream
   * may ignore either.
   */
  putManifest(
    repository: RepositoryName,
    reference: Reference,
    manifest: {mediaType: string; bytes: Buffer; tags?: readonly Tag[]; ifMatch?: string | undefined},
    caller: Caller,
  ): Promise<ManifestTaken>;
  deleteManifest(repository: RepositoryName, reference: Reference, caller: Caller): Promise<void>;
  deleteBlob(repository: RepositoryName, digest: Digest, caller: Caller): Promise<void>;
}
