import {createServer, type Server, type Socket} from 'node:net';
import type {TLSSocket} from 'node:tls';
import {formatAddress} from '../address.ts';
import type {Clock} from '../clock.ts';
import {errorCode} from '../error-code.ts';
import type {Events} from '../events.ts';
import {createListeningSockets, type ListeningSockets} from '../http/accept.ts';
import type {AnswerTable} from '../http/answer-table.ts';
import {type AnswerFromConnection, createConnectionAnswers} from '../http/connection-answers.ts';
import {type Connections, createConnections} from '../http/connections.ts';
import type {ClientCertificate} from '../http/entrance.ts';
import type {FileSender} from '../http/file-sender.ts';
import {createFrontDoor, type FrontDoor} from '../http/front-door.ts';
import type {RequestReader} from '../http/known-request.ts';
import type {Peer, PreparedSender} from '../http/prepared-sender.ts';
import type {SentBytes} from '../http/sent-bytes.ts';
import {createTlsServer, type TlsServer} from '../http/tls.ts';
import {createTlsFiles, type TlsPaths} from '../http/tls-files.ts';
import type {ConnectionOrder, HeaderSettings, WorkerListenerSettings} from './messages.ts';
import {type Post, RelayedConnection} from './relayed-connection.ts';

/** A listener of one worker. */
export interface WorkerListener {
  /** @throws the system's error */
  listen(): Promise<void>;
  /** Accepts nothing new, and ends the connections on which nothing is under way. Resolves when all have ended. */
  close(): Promise<void>;
  /** Ends all connections. */
  cut(): void;
}

/** A connection that the owner knows. */
export interface OwnedConnection {
  obey(order: ConnectionOrder): void;
}

export interface WorkerListenerParts {
  settings: WorkerListenerSettings;
  /** Those of all listeners, by the numbers that name them to the owner. */
  connections: Map<number, OwnedConnection>;
  nextId(): number;
  reader: RequestReader;
  table: AnswerTable;
  sender: Pick<PreparedSender, 'write'>;
  fileSender: Pick<FileSender, 'write'>;
  sentBytes: SentBytes;
  headers: HeaderSettings;
  post: Post;
  clock: Clock;
  events: Events;
}

/** The other end of a connection: the same before and after its handshake. */
const peerOf = ({remoteAddress, remotePort}: Socket): string => `${remoteAddress} ${remotePort}`;

export const createWorkerListener = (parts: WorkerListenerParts): WorkerListener => new SharedListener(parts);

class SharedListener implements WorkerListener {
  readonly #parts: WorkerListenerParts;
  readonly #tls: TlsServer | undefined;
  readonly #server: Server;
  readonly #sockets: ListeningSockets;
  readonly #connections: Connections;
  readonly #front: FrontDoor;
  readonly #relayed = new Map<Socket, RelayedConnection>();
  /** What begins the handshake of a connection. */
  readonly #beginTls: TlsServer['serve'];
  /** The numbers of the connections over TLS, by their other ends. */
  readonly #handshakes = new Map<string, number>();
  /** The connections that the front door has had. */
  readonly #opened = new WeakSet<Socket>();
  #isClosing = false;

  constructor(parts: WorkerListenerParts) {
    const {settings, headers, clock, events} = parts;
    this.#parts = parts;
    this.#connections = createConnections({sendTimeout: settings.sendTimeout, clock, events});
    this.#tls = settings.tls && this.#createTls(settings.tls);
    this.#server =
      this.#tls?.server ?? createServer({allowHalfOpen: true, noDelay: true, pauseOnConnect: true});
    this.#beginTls = this.#server.listeners('connection');
    this.#server.removeAllListeners('connection');
    this.#server.on('connection', (socket) => this.#accept(socket));
    this.#front = createFrontDoor({
      pass: (socket, unread) => this.#relayed.get(socket)?.relay(unread),
      connection: (peer) => this.#answersOf(peer),
      firstRequestTimeout: headers.timeout,
      refuseLate: (socket) => this.#relayed.get(socket)?.refuseLate(),
      clock,
    });
    const {address} = settings;
    this.#sockets = createListeningSockets({server: this.#server, address, isShared: true, clock, events});
  }

  async listen(): Promise<void> {
    await this.#tls?.begin();
    await this.#sockets.join();
  }

  close(): Promise<void> {
    this.#isClosing = true;
    this.#tls?.close();
    const ended = this.#sockets.close();
    this.#front.close();
    for (const relayed of this.#relayed.values()) relayed.stay();
    return ended;
  }

  cut(): void {
    this.#connections.destroyAll();
  }

  #createTls(paths: TlsPaths): TlsServer {
    const {settings, clock, events} = this.#parts;
    const tls = createTlsServer({
      options: {},
      files: createTlsFiles({listener: formatAddress(settings.address), paths, clock, events}),
      asksForCertificate: paths.clientCa !== undefined,
      clock,
      events,
      accepted: (socket, certificate) => this.#endHandshake(socket, certificate),
    });
    for (const own of tls.serve) tls.server.off('secureConnection', own as () => void);
    return tls;
  }

  /** Has the owner count a connection. */
  #accept(socket: Socket): void {
    const {settings, connections, post, nextId} = this.#parts;
    const id = nextId();
    this.#connections.add(socket);
    socket.once('close', () => {
      connections.delete(id);
      post({type: 'closed', id, code: errorCode(socket.errored)});
    });
    if (this.#tls) this.#beginHandshake(id, socket);
    else connections.set(id, this.#relay(id, socket));
    post({type: 'connected', id, listener: settings.number, address: socket.remoteAddress});
  }

  /** Begins the handshake once the owner has admitted the connection: a refusal must not cost one. */
  #beginHandshake(id: number, socket: Socket): void {
    const peer = peerOf(socket);
    this.#handshakes.set(peer, id);
    socket.once('close', () => this.#handshakes.get(peer) === id && this.#handshakes.delete(peer));
    this.#parts.connections.set(id, {
      obey: ({type}) => {
        if (type !== 'admitted') return void socket.destroy();
        for (const begin of this.#beginTls) begin.call(this.#server, socket);
      },
    });
  }

  #endHandshake(socket: TLSSocket, certificate: ClientCertificate | undefined): void {
    const {connections, post} = this.#parts;
    const id = this.#handshakes.get(peerOf(socket));
    if (id === undefined) return void socket.destroy();
    this.#connections.add(socket);
    const relayed = this.#relay(id, socket);
    connections.set(id, relayed);
    // A client certificate identifies the caller, and the request itself does not show it: the owner answers every request.
    if (certificate) post({type: 'certified', id, certificate});
    if (certificate) relayed.leave();
    else relayed.open();
  }

  #relay(id: number, socket: Socket): RelayedConnection {
    const {post} = this.#parts;
    const relayed = new RelayedConnection({
      id,
      socket,
      post,
      open: (unread) => this.#open(socket, unread),
      answered: () => this.#front.answered(socket),
    });
    this.#relayed.set(socket, relayed);
    socket.once('close', () => this.#relayed.delete(socket));
    return relayed;
  }

  /** Has the front door read a connection. */
  #open(socket: Socket, unread: Buffer | undefined): void {
    if (socket.destroyed) return;
    if (this.#isClosing) return void socket.end();
    // The owner has counted what it answered: only what is sent from now on counts here.
    this.#parts.sentBytes(socket);
    socket.pause();
    if (unread) socket.unshift(unread);
    if (this.#opened.has(socket)) this.#front.addAgain(socket);
    else this.#front.add(socket);
    this.#opened.add(socket);
  }

  #answersOf(peer: Peer): AnswerFromConnection {
    const {reader, settings, table, sender, fileSender, headers} = this.#parts;
    return createConnectionAnswers({
      requests: reader.connection(settings.number),
      find: ({key}) => table.find(key),
      sender,
      fileSender,
      entrance: {isSecure: settings.tls !== undefined},
      peer,
      maxHead: headers.size,
    });
  }
}
