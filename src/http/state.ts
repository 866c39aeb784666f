import type {DefaultState} from 'koa';
import type {Caller} from '../caller.ts';
import type {RequestKind} from '../events.ts';
import type {CacheReport} from '../registry/freshness.ts';
import type {Registries} from '../registry/registries.ts';

/** What one request carries from its beginning to its answer. */
export interface RequestState extends DefaultState {
  /** In the answer's header, its error body and the log. */
  id: string;
  caller: Caller;
  /** Bytes of the request's body that were read. */
  received: number;
  /** The client, which waits for it (`Expect: 100-continue`), was told to send its body. */
  invited: boolean;
  /** The configuration that this request was routed with. */
  registries: Registries;
  /** The registry that the request was routed to. */
  registry?: string;
  report?: CacheReport;
  kind: RequestKind;
  /** Why it was refused, or failed: what the client was told, or what broke off its answer. */
  reason?: string;
}
