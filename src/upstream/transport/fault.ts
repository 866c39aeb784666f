import {UpstreamFailure} from '../port.ts';
import {PrivateAddress, refusedAddress} from './private-address.ts';

/** Faults of a moment; the same request may succeed at once or soon. */
const PASSING = new Set([
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

const EXPLAINED: Record<string, string> = {
  ECONNREFUSED: 'refuses connections',
  ECONNRESET: 'broke the connection',
  ERR_STREAM_PREMATURE_CLOSE: 'broke the connection',
  ENOTFOUND: 'is a host name that DNS does not know',
  EAI_AGAIN: 'is a host name that DNS cannot look up at the moment',
  ENETUNREACH: 'cannot be reached from this network',
  EHOSTUNREACH: 'cannot be reached from this network',
  DEPTH_ZERO_SELF_SIGNED_CERT:
    'has a certificate that no trusted authority signed; add its authority to upstream.ca',
  SELF_SIGNED_CERT_IN_CHAIN:
    'has a certificate that no trusted authority signed; add its authority to upstream.ca',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    'has a certificate that no trusted authority signed; add its authority to upstream.ca',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    'has a certificate that no trusted authority signed; add its authority to upstream.ca',
  CERT_HAS_EXPIRED: 'has a certificate that has expired',
  ERR_TLS_CERT_ALTNAME_INVALID: 'has a certificate for other host names',
  EPROTO: 'does not speak TLS there; an upstream without it needs http:// and "insecure: true"',
};

/** A connection that failed before or in the middle of an answer. */
export class ConnectionFault extends UpstreamFailure {
  /** Asking again may help. */
  readonly passing: boolean;

  constructor(
    kind: 'unreachable' | 'protocol',
    host: string,
    reason: string,
    passing: boolean,
    cause?: unknown,
  ) {
    super(kind, host, reason, {cause});
    this.passing = passing;
  }
}

const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';

/** Turns what node or got threw into a fault that names what a person can do. The request's headers are left behind. */
export function connectionFault(error: unknown, host: string): ConnectionFault {
  const code = codeOf(error);
  // got's errors carry the request's options, Authorization among them; only node's own error may travel on.
  const cause = error instanceof Error && 'options' in error ? error.cause : error;
  if (cause instanceof PrivateAddress) {
    const reason = refusedAddress(cause.hostname, cause.address);
    return new ConnectionFault('protocol', host, reason, false, cause);
  }
  if (code.startsWith('HPE_')) {
    return new ConnectionFault('protocol', host, `sent what is no HTTP answer (${code})`, false, cause);
  }
  const reason = EXPLAINED[code] ?? 'connection failed';
  return new ConnectionFault(
    'unreachable',
    host,
    code ? `${reason} (${code})` : reason,
    PASSING.has(code),
    cause,
  );
}
