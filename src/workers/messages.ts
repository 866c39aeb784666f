import type {EventMap} from '../events.ts';
import type {NetworkAddress} from '../http/accept.ts';
import type {PreparedAnswer} from '../http/answer-table.ts';
import type {ClientCertificate} from '../http/entrance.ts';
import type {FileRequest, FileRunEnd} from '../http/file-runs.ts';
import type {GivenAnswer, GivenAnswers} from '../http/prepared-reports.ts';
import type {TlsPaths} from '../http/tls-files.ts';

/** What a worker begins with. */
export interface WorkerSetup {
  readonly listeners: readonly WorkerListenerSettings[];
  /** Those of `Generations`. */
  readonly slots: Int32Array<SharedArrayBuffer>;
  /** Bytes for prepared answers. */
  readonly preparedBytes: number;
  /** The folder of the blobs, for messages, and the bytes of memory that their files are read into. */
  readonly files: {readonly path: string; readonly readBytes: number};
  /** That of the owner's requests, so that keys are the same. */
  readonly keySecret: string;
  /** `limits.headers`, of which a reload changes `count` alone. */
  readonly headers: HeaderSettings;
  /** The times of a clock that is not the system's: see `Clock`. */
  readonly times: Float64Array<SharedArrayBuffer> | undefined;
  /** A number that is 0 while nobody hears of each request. */
  readonly heard: Int32Array<SharedArrayBuffer>;
}

/** As `limits.headers`. */
export interface HeaderSettings {
  readonly size: number;
  readonly count: number;
  readonly timeout: number;
}

/** A listener that workers share. */
export interface WorkerListenerSettings {
  /** That of its entrance. */
  readonly number: number;
  /** With the port that the owner has. */
  readonly address: NetworkAddress;
  readonly tls: TlsPaths | undefined;
  /** Milliseconds in which a client has to take some of the bytes that wait for it. */
  readonly sendTimeout: number;
}

/** Bytes whose memory is given away with them. */
export type OwnBytes = Uint8Array<ArrayBuffer>;

/** About one connection of a worker. */
export type ConnectionOrder = {readonly id: number} & (
  | {
      readonly type: /** Its requests are served; or the owner answers them, because they are not. */
        | 'admitted'
        | 'refused'
        | 'end'
        | 'destroy'
        /** Everything that has arrived is answered: the worker may take the connection back. */
        | 'rest';
    }
  | {readonly type: 'write'; readonly bytes: OwnBytes}
  /** So many bytes of what was relayed are taken: the client may send as many again. */
  | {readonly type: 'taken'; readonly count: number}
);

/** From the owner to a worker. */
export type ToWorker =
  | ConnectionOrder
  /** Requests with this key may be given this answer. */
  | {readonly type: 'keep'; readonly key: string; readonly answer: PreparedAnswer}
  /** The answer from a file has begun, with this `X-Request-Id`; without one, the ordinary way has to answer. */
  | {readonly type: 'begun'; readonly run: number; readonly id: string | undefined}
  /** What is at this path may be another file now, or none. */
  | {readonly type: 'forget'; readonly path: string}
  | {readonly type: 'headers'; readonly headers: HeaderSettings}
  /** Asks for what has happened until now. */
  | {readonly type: 'report'}
  /** Accept nothing new, and end the connections on which nothing is under way. */
  | {readonly type: 'stop'}
  /** End the connections that are left after that. */
  | {readonly type: 'cut'};

/** What happened in a worker, for the owner to count and report. */
export type Happening =
  | {
      readonly [Name in WorkerEvent]: {readonly event: Name; readonly args: EventMap[Name]};
    }[WorkerEvent]
  | {readonly given: GivenAnswer}
  | {readonly counted: readonly GivenAnswers[]};

/** The events that a worker emits. */
export type WorkerEvent =
  | 'client.stalled'
  | 'client.handshake-failed'
  | 'listener.failed'
  | 'disk.failed'
  | 'request.fault'
  | 'server.fault';

/** About one connection of a worker. */
export type ConnectionNews = {readonly id: number} & (
  | {readonly type: 'connected'; readonly listener: number; readonly address: string | undefined}
  /** After a handshake of TLS. */
  | {readonly type: 'certified'; readonly certificate: ClientCertificate}
  | {readonly type: 'data'; readonly bytes: OwnBytes}
  | {
      readonly type: /** The operating system has taken the last `write`. */
        | 'written'
        /** The worker has taken the connection back. */
        | 'opened'
        /** The client sends nothing more. */
        | 'ended'
        /** No request has begun in time. */
        | 'late';
    }
  /** With the code of the error that ended it. */
  | {readonly type: 'closed'; readonly code: string | undefined}
);

/** From a worker to the owner. */
export type ToOwner =
  | ConnectionNews
  | {readonly type: 'listening'}
  /** Asks whether an answer may be given from a file. `run` names it from now on. */
  | {readonly type: 'begin'; readonly run: number; readonly request: FileRequest}
  | {readonly type: 'end'; readonly run: number; readonly end: FileRunEnd}
  | {readonly type: 'happened'; readonly happenings: readonly Happening[]}
  /** Everything is reported that happened before the owner asked. */
  | {readonly type: 'reported'}
  /** All of its connections have ended. */
  | {readonly type: 'stopped'};
