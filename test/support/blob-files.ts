import {subscribe} from 'node:diagnostics_channel';
import {readdir, readlink} from 'node:fs/promises';
import type {IncomingMessage} from 'node:http';
import {join} from 'node:path';
import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Backref} from './backref.ts';
import type {Content} from './content.ts';

export const pathOf = ({digest}: Content): string => `/v2/app/blobs/${digest}`;

/** A request for a blob. @param fields more header fields, each with its line end */
export const get = (content: Content, fields = ''): string =>
  `GET ${pathOf(content)} HTTP/1.1\r\nHost: a\r\n${fields}\r\n`;

/** The targets of the requests that node's HTTP server has read: those that no front door has answered. */
const passed: string[] = [];
subscribe('http.server.request.start', (message) => {
  const {request} = message as {request: IncomingMessage};
  passed.push(request.url ?? '');
});

/** How many requests for a blob node's HTTP server has read. */
export const passedOn = (content: Content): number => passed.filter((url) => url === pathOf(content)).length;

/** The file of a stored blob. */
export const fileOf = ({folder}: Backref, {digest}: Content): string =>
  join(folder, 'blobs', 'sha256', digest.slice(7, 9), digest.slice(7));

/** How many files of blobs this process has open. */
export async function openFiles({folder}: Backref): Promise<number> {
  const links = (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => ''));
  const paths = await Promise.all(links);
  return paths.filter((path) => path.startsWith(join(folder, 'blobs'))).length;
}

/** Resolves when none of them is open. */
export async function untilClosed(proxy: Backref): Promise<void> {
  while ((await openFiles(proxy)) > 0) await nextTurn();
}
