import {readFile} from 'node:fs/promises';

/** How many sockets listen on a port of 127.0.0.1. Only Linux says that. */
export async function listeningSockets(port: number): Promise<number> {
  const hex = port.toString(16).toUpperCase().padStart(4, '0');
  const listening = new RegExp(`:${hex} [0-9A-F]+:0000 0A `, 'g');
  return [...(await readFile('/proc/net/tcp', 'utf8')).matchAll(listening)].length;
}
