import type {Caller} from '../caller.ts';
import type {RepositoryName} from '../oci/name.ts';
import type {Permission} from './auth/auth.ts';
import type {Demand} from './port.ts';
import type {SlotKind} from './transport/limit.ts';
import type {Method, Reply} from './transport/reply.ts';
import type {RepeatableBody} from './transport/request.ts';
import type {StreamedBody} from './transport/send-stream.ts';

/** What a request is about, and for whom it is made. */
export interface Resource {
  url: URL;
  repository: RepositoryName;
  caller: Caller;
}

export interface ApiRequest extends Resource {
  method: Method;
  headers: Record<string, string>;
  body?: RepeatableBody;
  /** A body that can be sent only once, instead of `body`: no redirect is followed with it. */
  stream?: StreamedBody;
  /** The limit that counts it until its body ends. */
  slot: SlotKind;
  /** For a download: while nobody wants it, it gives way to others of its slot. */
  demand?: Demand | undefined;
  /** Statuses besides 2xx that answer this request; any other is a failure. */
  expected: readonly number[];
  /** `one`: do not retry, because part of the body may have been accepted. */
  attempts?: 'one';
  /** `any`: the status is the answer, whatever comes with it. */
  content?: 'any';
  /** The permission that it needs, where the method does not determine it. */
  permission?: Pick<Permission, 'from' | 'ownScope' | 'isLogin'> & Partial<Pick<Permission, 'actions'>>;
}

/**
 * Sends a request to the upstream, with everything that belongs to it: slot, breaker, tokens, redirects, retries, and one
 * time budget for all of them.
 */
export interface Ask {
  /**
   * @returns the head of a reply with a 2xx or `expected` status. Read, discard or close its body.
   * @throws UpstreamFailure
   */
  (request: ApiRequest): Promise<Reply>;
  /**
   * Reads the reply as well. A GET whose reply turns out to be spoiled is sent again, within the same limits.
   * @param read consumes the reply; throws SpoiledAnswer when its content is not what was asked for
   * @throws UpstreamFailure, and what `read` throws
   */
  <T>(request: ApiRequest, read: (reply: Reply) => Promise<T>): Promise<T>;
}
