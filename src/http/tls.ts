import type {Server, ServerOptions} from 'node:http';
import {createServer} from 'node:https';
import type {Socket} from 'node:net';
import type {Duplex} from 'node:stream';
import type {TLSSocket} from 'node:tls';
import type {Clock} from '../clock.ts';
import {errorCode} from '../error-code.ts';
import type {Events} from '../events.ts';
import {OciError} from '../oci/errors.ts';
import {type ClientCertificate, readClientCertificate} from './entrance.ts';
import {sendOnSocket} from './send.ts';
import type {TlsFiles} from './tls-files.ts';

/** An HTTP server behind TLS 1.2 or later, whose key pair is replaced while it runs. */
export interface TlsServer {
  readonly server: Server;
  /** What node's HTTP server does with a connection after its handshake. */
  readonly serve: readonly ReturnType<Server['listeners']>[number][];
  /** Reads the key pair, and from then on whenever it changes. @throws as `TlsFiles.read` */
  begin(): Promise<void>;
  /** Ends the watch of the key pair, and the connections on which nothing of a request has arrived. */
  close(): void;
}

export interface TlsServerParts {
  options: ServerOptions;
  files: TlsFiles;
  /** Whether clients are asked for certificates. They need not have one. */
  asksForCertificate: boolean;
  clock: Clock;
  events: Events;
  /** Called for each connection before its first request; the certificate is verified. */
  accepted(socket: TLSSocket, certificate: ClientCertificate | undefined): void;
}

/** How long a client may take for its handshake. */
const HANDSHAKE_TIMEOUT_MS = 10_000;

const PLAIN_HTTP = new OciError('UNSUPPORTED', {
  status: 400,
  message: 'this port speaks TLS and got a request in plain HTTP: use https://',
});

export function createTlsServer(parts: TlsServerParts): TlsServer {
  const {options, files, asksForCertificate, clock, events, accepted} = parts;
  const server = createServer({
    ...options,
    requestCert: asksForCertificate,
    // A connection without a certificate is accepted. `secureConnection` ends one whose certificate does not verify.
    rejectUnauthorized: false,
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
  });
  const serve = server.listeners('secureConnection');
  const handshakes = new Map<string, Duplex>();
  const open = new Set<TLSSocket>();
  // Node would take a failed handshake for a request that cannot be read, to be answered with plain HTTP.
  server.removeAllListeners('tlsClientError');
  server.on('tlsClientError', (error, socket) => {
    events.emit('client.handshake-failed', {address: socket.remoteAddress, reason: error.message});
    const plain = errorCode(error) === 'ERR_SSL_HTTP_REQUEST' ? handshakes.get(peerOf(socket)) : undefined;
    if (plain) sendOnSocket(plain, PLAIN_HTTP, clock);
    else socket.destroy();
  });
  server.on('connection', (socket) => {
    const peer = peerOf(socket as Socket);
    handshakes.set(peer, socket);
    socket.once('close', () => handshakes.get(peer) === socket && handshakes.delete(peer));
  });
  // Before node's own listener, which reads the first request.
  server.prependListener('secureConnection', (socket) => {
    handshakes.delete(peerOf(socket));
    open.add(socket);
    socket.once('close', () => open.delete(socket));
    const certificate = asksForCertificate ? socket.getPeerX509Certificate() : undefined;
    if (!certificate || socket.authorized)
      return accepted(socket, certificate && readClientCertificate(certificate));
    const reason = `its certificate does not verify: ${socket.authorizationError}`;
    events.emit('client.handshake-failed', {address: socket.remoteAddress, reason});
    socket.destroy();
  });

  return {
    server,
    serve,
    async begin() {
      server.setSecureContext(await files.read());
      files.watch((context) => server.setSecureContext(context));
    },
    close() {
      files.close();
      for (const socket of handshakes.values()) socket.destroy();
      // Node's HTTP server calls a connection idle only after its first request.
      for (const socket of open) if (socket.bytesRead === 0) socket.destroy();
    },
  };
}

/** The other end of a connection: the same before and after its handshake. */
const peerOf = ({remoteAddress, remotePort}: Pick<Socket, 'remoteAddress' | 'remotePort'>): string =>
  `${remoteAddress} ${remotePort}`;
