import {errorCode} from '../../error-code.ts';
import {UpstreamFailure} from '../port.ts';
import {PrivateAddress, refusedAddress} from './private-address.ts';

/** Faults after which the same request may succeed at once or soon. */
const TRANSIENT = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'ENETUNREACH',
  'EHOSTUNREACH',
  'ENETDOWN',
  'ETIMEDOUT',
  'EAI_AGAIN',
  'ERR_STREAM_PREMATURE_CLOSE',
]);

const UNTRUSTED = 'has a certificate that no trusted authority signed; add its authority to upstream.ca';
const REASONS: Record<string, string> = {
  ECONNREFUSED: 'refuses connections',
  ECONNRESET: 'broke the connection',
  ERR_STREAM_PREMATURE_CLOSE: 'broke the connection',
  ENOTFOUND: 'is a host name that DNS does not know',
  EAI_AGAIN: 'is a host name that DNS cannot look up at the moment',
  ENETUNREACH: 'cannot be reached from this network',
  EHOSTUNREACH: 'cannot be reached from this network',
  DEPTH_ZERO_SELF_SIGNED_CERT: UNTRUSTED,
  SELF_SIGNED_CERT_IN_CHAIN: UNTRUSTED,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNTRUSTED,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNTRUSTED,
  CERT_HAS_EXPIRED: 'has a certificate that has expired',
  ERR_TLS_CERT_ALTNAME_INVALID: 'has a certificate for other host names',
  EPROTO: 'does not speak TLS on that port; an upstream without TLS needs http:// and "insecure: true"',
};

/** A connection that failed before or during a response. */
export class ConnectionFault extends UpstreamFailure {
  /** Whether a retry may help. */
  readonly transient: boolean;

  constructor(
    kind: 'unreachable' | 'protocol',
    host: string,
    reason: string,
    transient: boolean,
    cause?: unknown,
  ) {
    super(kind, host, reason, {cause});
    this.transient = transient;
  }
}

/** Turns an error of node or got into a fault that says what to do. Drops the request's headers. */
export function connectionFault(error: unknown, host: string): ConnectionFault {
  const code = errorCode(error) ?? '';
  // got's errors hold the request's options, including Authorization; only node's own error may be passed on.
  const cause = error instanceof Error && 'options' in error ? error.cause : error;
  if (cause instanceof PrivateAddress) {
    const reason = refusedAddress(cause.hostname, cause.address);
    return new ConnectionFault('protocol', host, reason, false, cause);
  }
  if (code.startsWith('HPE_'))
    return new ConnectionFault('protocol', host, `sent an invalid HTTP response (${code})`, true, cause);
  const reason = REASONS[code] ?? 'connection failed';
  const detail = code ? `${reason} (${code})` : reason;
  return new ConnectionFault('unreachable', host, detail, TRANSIENT.has(code), cause);
}
