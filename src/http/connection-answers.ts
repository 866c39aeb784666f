import type {AnswerTable} from './answer-table.ts';
import type {Entrance} from './entrance.ts';
import type {FileSender} from './file-sender.ts';
import type {KnownRequest, KnownRequests} from './known-request.ts';
import type {Peer, PreparedSender} from './prepared-sender.ts';
import {maxWriteAt} from './write-size.ts';

/**
 * Answers the bytes that were read from a connection, if they are one complete request with a prepared answer.
 * @returns whether it has; where it has not, nothing has happened. A promise, until which nothing else may be answered, for
 * an answer that takes longer; it never rejects
 */
export type AnswerFromConnection = (bytes: Buffer) => boolean | Promise<boolean>;

export interface ConnectionAnswersParts {
  /** Reads the requests of this connection. */
  requests: KnownRequests;
  find(request: KnownRequest): ReturnType<AnswerTable['find']>;
  sender: Pick<PreparedSender, 'write'>;
  fileSender: Pick<FileSender, 'write'>;
  entrance: Pick<Entrance, 'isSecure'>;
  peer: Peer;
  /** Bytes of a head: `limits.headers.size`. */
  maxHead: number;
}

/** What is read below node's HTTP server at once. A token makes up most of a longer head. */
const MAX_HEAD_BYTES = 8 * 1024;

/** Answers the requests of one connection below node's HTTP server. */
export function createConnectionAnswers(parts: ConnectionAnswersParts): AnswerFromConnection {
  const {requests, find, sender, fileSender, entrance, peer} = parts;
  const maxBytes = Math.min(parts.maxHead, MAX_HEAD_BYTES);
  return (bytes) => {
    if (bytes.length >= maxBytes) return false;
    const known = requests.read(bytes);
    const answer = known && find(known);
    if (!known || !answer) return false;
    const {file} = answer;
    if (!file) return sender.write(known, peer, answer);
    return fileSender.write(known, peer, {...answer, file}, maxWriteAt(entrance));
  };
}
