import {subscribe, unsubscribe} from 'node:diagnostics_channel';
import {once} from 'node:events';
import type {Server, ServerResponse} from 'node:http';
import {connect} from 'node:net';

/** Node's own HTTP server behind an address, to have it emit what otherwise only the system could cause. */
export async function nodeServerAt(address: {port: number} | {path: string}): Promise<Server> {
  const {promise, resolve} = Promise.withResolvers<Server>();
  const mark = `GET /?${crypto.randomUUID()}`;
  const look = (message: unknown) => {
    const {request, server} = message as {request: ServerResponse['req']; server: Server};
    if (`${request.method} ${request.url}` === mark) resolve(server);
  };
  subscribe('http.server.request.start', look);
  const socket = 'path' in address ? connect(address.path) : connect(address.port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    socket.write(`${mark} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);
    return await promise;
  } finally {
    unsubscribe('http.server.request.start', look);
    socket.destroy();
  }
}
