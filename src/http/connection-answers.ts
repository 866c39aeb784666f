import type {AnswerTable} from './answer-table.ts';
import type {KnownRequest, KnownRequests} from './known-request.ts';
import type {Peer, PreparedSender} from './prepared-sender.ts';

/**
 * Answers the bytes that were read from a connection, if they are one complete request with a prepared answer.
 * @returns whether it has; where it has not, nothing has happened
 */
export type AnswerFromConnection = (bytes: Buffer) => boolean;

export interface ConnectionAnswersParts {
  /** Reads the requests of this connection. */
  requests: KnownRequests;
  find(request: KnownRequest): ReturnType<AnswerTable['find']>;
  sender: Pick<PreparedSender, 'write'>;
  peer: Peer;
  /** Bytes of a head: `limits.headers.size`. */
  maxHead: number;
}

/** What is read below node's HTTP server at once. A token makes up most of a longer head. */
const MAX_HEAD_BYTES = 8 * 1024;

/** Answers the requests of one connection below node's HTTP server. */
export function createConnectionAnswers(parts: ConnectionAnswersParts): AnswerFromConnection {
  const {requests, find, sender, peer} = parts;
  const maxBytes = Math.min(parts.maxHead, MAX_HEAD_BYTES);
  return (bytes) => {
    if (bytes.length >= maxBytes) return false;
    const known = requests.read(bytes);
    const answer = known && find(known);
    return known !== undefined && answer !== undefined && sender.write(known, peer, answer);
  };
}
