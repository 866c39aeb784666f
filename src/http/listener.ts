import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http';
import type {Socket} from 'node:net';
import type {Duplex} from 'node:stream';
import {formatAddress, type ListenAddress} from '../address.ts';
import type {Clock} from '../clock.ts';
import type {Events} from '../events.ts';
import type {OciError} from '../oci/errors.ts';
import {createListeningSockets, type ListeningSockets} from './accept.ts';
import type {PreparedAnswer} from './answer-table.ts';
import type {App, Learn} from './app.ts';
import {type ConnectionLimit, createConnectionLimit} from './connection-limit.ts';
import {type ClientSocket, type Connections, createConnections} from './connections.ts';
import {type ClientCertificate, canonicalAddress, type Entrance} from './entrance.ts';
import {createFrontDoor, type FrontDoor} from './front-door.ts';
import {createGracefulClose, type GracefulClose} from './graceful-close.ts';
import {isProbe} from './health.ts';
import {IDLE_TIMEOUT_MS} from './keep-alive.ts';
import type {LimitSettings, Limits} from './limits.ts';
import {createPipelines, type Pipelines} from './pipelines.ts';
import {sendOnSocket} from './send.ts';
import {createTlsServer, type TlsServer} from './tls.ts';
import {createTlsFiles, type TlsPaths} from './tls-files.ts';
import {LATE, NO_TUNNEL, unreadable} from './unreadable.ts';

export interface Listener {
  /**
   * Returns the address that it listens on, with the port that it took where that was 0.
   * @throws the system's error, e.g. EADDRINUSE; Error when the key pair for TLS cannot be used
   */
  listen(): Promise<ListenAddress>;
  /** Accepts nothing new, lets running requests end within `grace` milliseconds, then cuts the rest. */
  close(grace: number): Promise<void>;
  /** Counts a connection that a worker has. @returns whether its requests are served; it may be refused, or have ended */
  adopt(socket: AdoptedSocket): boolean;
  /** Such a connection has had its handshake, with this certificate. */
  certify(socket: AdoptedSocket, certificate: ClientCertificate): void;
  /** Serves what is read from such a connection from now on. */
  serve(socket: AdoptedSocket): void;
  /** Ends such a connection, on which no request has begun in time. */
  refuseLate(socket: AdoptedSocket): void;
}

/** A client's connection that a worker has. */
export interface AdoptedSocket extends ClientSocket {
  /** Everything that was read from it is answered. */
  rest(): void;
  /** The worker may give this answer to requests with this key. */
  keep(key: string, answer: PreparedAnswer): void;
}

/** How often slow headers are looked for. A client is refused at most one interval late. */
const HEADER_CHECKS_PER_TIMEOUT = 4;

/** How long a client may take to send the rest of a body after its answer. */
const MAX_REST_MS = 30_000;

export interface ListenerParts {
  app: Pick<App, 'handle' | 'connection'>;
  address: ListenAddress;
  /** The files of its key pair; undefined for plain HTTP. */
  tls: TlsPaths | undefined;
  /** That of every connection, without a client certificate. */
  entrance: Entrance;
  /** Whether several sockets listen on its port: see `createListeningSockets`. */
  isShared: boolean;
  /** Milliseconds in which a client has to take some of the bytes that wait for it. */
  sendTimeout: number;
  /** How many connections may be open, those of all listeners together. */
  limits: Limits;
  clock: Clock;
  events: Events;
}

/** The HTTP server below the application: limits, malformed requests, and the end. */
export const createListener = (parts: ListenerParts): Listener => new HttpListener(parts);

class HttpListener implements Listener {
  readonly #app: ListenerParts['app'];
  readonly #entrance: Entrance;
  readonly #tls: TlsServer | undefined;
  /** The entrances of the connections with a client certificate. */
  readonly #certified = new WeakMap<Duplex, Entrance>();
  readonly #connections: Connections;
  readonly #limit: ConnectionLimit;
  readonly #clock: Clock;
  readonly #limits: Limits;
  readonly #server: Server;
  readonly #sockets: ListeningSockets;
  readonly #pipelines: Pipelines;
  readonly #graceful: GracefulClose;
  /** What node's HTTP server does with a connection, after its handshake over TLS. */
  readonly #own: TlsServer['serve'];
  /** Undefined over TLS: node's HTTP server reads what was decrypted, and asks the same table of answers. */
  readonly #front: FrontDoor | undefined;
  readonly #adopted = new Set<Duplex>();
  #closing = false;

  constructor({app, address, isShared, tls, entrance, sendTimeout, limits, clock, events}: ListenerParts) {
    this.#app = app;
    this.#entrance = entrance;
    this.#limits = limits;
    this.#pipelines = createPipelines(() => limits.settings);
    this.#connections = createConnections({sendTimeout, clock, events});
    this.#limit = createConnectionLimit({entrance, limits, clock});
    const options = optionsFor(limits.settings.headers);
    const files = tls && createTlsFiles({listener: formatAddress(address), paths: tls, clock, events});
    this.#tls =
      files &&
      createTlsServer({
        options,
        files,
        asksForCertificate: tls.clientCa !== undefined,
        clock,
        events,
        accepted: (socket, certificate) => {
          this.#connections.add(socket);
          if (certificate) this.#certified.set(socket, {...entrance, certificate});
        },
      });
    this.#server = this.#tls?.server ?? createServer(options);
    this.#own = this.#tls?.serve ?? this.#server.listeners('connection');
    this.#graceful = createGracefulClose(this.#server, this.#connections);
    this.#clock = clock;
    this.#front = this.#tls ? undefined : this.#openFrontDoor();
    this.#attach();
    this.#sockets = createListeningSockets({server: this.#server, address, isShared, clock, events});
  }

  async listen(): Promise<ListenAddress> {
    await this.#tls?.begin();
    return this.#sockets.listen();
  }

  async close(grace: number): Promise<void> {
    this.#closing = true;
    this.#tls?.close();
    const ended = this.#graceful.begin([this.#sockets.close(), ...[...this.#adopted].map(whenClosed)]);
    this.#front?.close();
    const cancel = this.#clock.after(grace, () => this.#connections.destroyAll());
    await ended;
    cancel();
  }

  adopt(socket: AdoptedSocket): boolean {
    this.#connections.adopt(socket);
    this.#adopted.add(socket);
    socket.once('close', () => this.#adopted.delete(socket));
    this.#limit.add(socket);
    return !socket.destroyed && !this.#limit.refusalOf(socket);
  }

  certify(socket: AdoptedSocket, certificate: ClientCertificate): void {
    this.#certified.set(socket, {...this.#entrance, certificate});
  }

  serve(socket: AdoptedSocket): void {
    this.#pass(socket);
  }

  refuseLate(socket: AdoptedSocket): void {
    this.#refuseUnreadable(LATE, socket);
  }

  #attach(): void {
    const server = this.#server;
    // The application refuses those that are too many: the parser would drop them.
    server.maxHeadersCount = 0;
    server.on('request', this.#serve);
    // A request that is refused by its headers spares the client the body: the reader of the body asks for it.
    server.on('checkContinue', this.#serve);
    // RFC 9110, section 10.1.1: an expectation that is not understood may be ignored.
    server.on('checkExpectation', this.#serve);
    server.on('connection', (socket) => this.#accept(socket));
    server.on('connect', (_request: IncomingMessage, socket: Duplex) => this.#refuseTunnel(socket));
    server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) =>
      this.#refuseUnreadable(error, socket as Socket),
    );
  }

  #openFrontDoor(): FrontDoor {
    this.#server.removeAllListeners('connection');
    // As the option of node:net, which its HTTP server does not pass on: nothing is read before the front door begins to.
    Object.assign(this.#server, {pauseOnConnect: true});
    return createFrontDoor({
      pass: (socket, unread) => {
        socket.pause();
        socket.unshift(unread);
        this.#pass(socket);
      },
      connection: (peer) => this.#app.connection(peer, this.#entrance),
      firstRequestTimeout: this.#limits.settings.headers.timeout,
      refuseLate: (socket) => this.#refuseUnreadable(LATE, socket),
      clock: this.#clock,
    });
  }

  #accept(socket: Socket): void {
    this.#connections.add(socket);
    this.#limit.add(socket);
    if (socket.destroyed || !this.#front) return;
    if (this.#closing || this.#limit.refusalOf(socket)) this.#pass(socket);
    else this.#front.add(socket);
  }

  /** Leaves a connection to node's HTTP server. */
  #pass(socket: ClientSocket): void {
    for (const own of this.#own) own.call(this.#server, socket);
    socket.resume();
  }

  readonly #serve = (request: IncomingMessage, response: ServerResponse): void => {
    const {socket} = request;
    const refusal = this.#limit.refusalOf(socket);
    if (refusal && !isProbe(request)) return void this.#refuseConnection(refusal, request);
    try {
      this.#pipelines.add(response, () => this.#begin(request, response));
    } catch (error) {
      this.#limits.report(error, canonicalAddress(socket.remoteAddress ?? ''));
      socket.destroy();
      return;
    }
    response.once('finish', () => this.#boundRest(request));
    response.once('close', () => this.#afterAnswer(request));
  };

  #afterAnswer({socket, complete}: IncomingMessage): void {
    // The connection of an answer that ended after `close` was called is idle now and would hold the server open.
    if (this.#closing) this.#graceful.endIdle();
    else if (isAdopted(socket) && complete && socket.writable && !this.#pipelines.isBusy(socket))
      socket.rest();
  }

  #begin(request: IncomingMessage, response: ServerResponse): void {
    const {socket} = request;
    if (this.#closing || this.#limit.refusalOf(socket)) response.setHeader('Connection', 'close');
    const learn: Learn | undefined = isAdopted(socket)
      ? (key, answer) => socket.keep(key, answer)
      : undefined;
    this.#app.handle(request, response, this.#certified.get(socket) ?? this.#entrance, learn);
  }

  /** The rest of a body is skipped after its answer, but not forever. */
  #boundRest(request: IncomingMessage): void {
    if (request.complete) return;
    this.#clock.after(MAX_REST_MS, () => {
      if (!request.complete) request.socket.destroy();
    });
  }

  /** Answers the first request on a connection that is one too many, unless it is a probe, and ends the connection. */
  #refuseConnection(refusal: OciError, request: IncomingMessage): void {
    const {socket, method} = request;
    if (socket.writable) sendOnSocket(socket, refusal, this.#clock, method);
    request.resume();
  }

  #refuseTunnel(socket: Duplex): void {
    // Written now, the refusal would be taken for the answer to the request before it.
    if (this.#pipelines.unfinished(socket).length > 0) return void socket.destroy();
    sendOnSocket(socket, NO_TUNNEL, this.#clock);
  }

  #refuseUnreadable(error: NodeJS.ErrnoException, socket: ClientSocket): void {
    // RFC 9112, section 9.6: what follows a request that said close is not read. The answer to that one ends the connection.
    if (error.code === 'HPE_CLOSED_CONNECTION') return;
    const refusal = unreadable(error, this.#limits.settings.headers);
    this.#limits.report(refusal, canonicalAddress(socket.remoteAddress ?? ''));
    // The text of an error would be taken for more of an answer that has begun, or for the answer to a request before.
    const isMistakable = this.#pipelines
      .unfinished(socket)
      .some(({headersSent, req}) => headersSent || req.complete);
    if (error.code === 'ECONNRESET' || !socket.writable || isMistakable) return void socket.destroy();
    sendOnSocket(socket, refusal, this.#clock);
  }
}

/** Also where an error ends it. */
const whenClosed = (socket: Duplex): Promise<void> =>
  new Promise((resolve) => socket.once('close', () => resolve()));

const isAdopted = (socket: Duplex): socket is AdoptedSocket => 'keep' in socket;

const optionsFor = ({size, timeout}: LimitSettings['headers']): ServerOptions => ({
  maxHeaderSize: size,
  headersTimeout: timeout,
  connectionsCheckingInterval: Math.ceil(timeout / HEADER_CHECKS_PER_TIMEOUT),
  // The largest blob may take hours; the reader of a body ends it when it arrives too slowly.
  requestTimeout: 0,
  requireHostHeader: false,
  keepAliveTimeout: IDLE_TIMEOUT_MS,
});
