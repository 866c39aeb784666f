import type {EventMap} from '../events.ts';
import type {NetworkAddress} from '../http/accept.ts';
import type {PreparedAnswer} from '../http/answer-table.ts';
import type {ClientCertificate} from '../http/entrance.ts';
import type {GivenAnswer, GivenAnswers} from '../http/prepared-reports.ts';
import type {TlsPaths} from '../http/tls-files.ts';

/** What a worker begins with. */
export interface WorkerSetup {
  readonly listeners: readonly WorkerListenerSettings[];
  /** Those of `Generations`. */
  readonly slots: Int32Array<SharedArrayBuffer>;
  /** Bytes for prepared answers. */
  readonly preparedBytes: number;
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
export type WorkerEvent = 'client.stalled' | 'client.handshake-failed' | 'listener.failed' | 'server.fault';

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
  | {readonly type: 'happened'; readonly happenings: readonly Happening[]}
  /** Everything is reported that happened before the owner asked. */
  | {readonly type: 'reported'}
  /** All of its connections have ended. */
  | {readonly type: 'stopped'};
