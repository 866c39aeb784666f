/* Loads one URL with HEAD requests, in one thread: wrk waits for the body that Content-Length announces, and which the
answer to a HEAD does not have. Arguments: the URL, how many connections, for how many seconds. Prints what wrk.ts reads. */
import {connect} from 'node:net';
import {performance} from 'node:perf_hooks';
import {ACCEPT} from './download.ts';

const [url = '', connections = '', seconds = ''] = process.argv.slice(2);
const {hostname, port, pathname} = new URL(url);
const REQUEST = Buffer.from(
  `HEAD ${pathname} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nAccept: ${ACCEPT}\r\n\r\n`,
);
const OK = Buffer.from('HTTP/1.1 200 ');
const END = Buffer.from('\r\n\r\n');

let [requests, bytes, errors] = [0, 0, 0];

/** One connection, with one request after the other. */
function load(): void {
  const socket = connect(Number(port), hostname);
  socket.setNoDelay(true);
  let begins = true;
  socket.on('connect', () => socket.write(REQUEST));
  socket.on('data', (chunk) => {
    bytes += chunk.length;
    if (begins && !chunk.subarray(0, OK.length).equals(OK)) errors += 1;
    // The only answer that is under way ends with its headers.
    begins = chunk.subarray(-END.length).equals(END);
    if (!begins) return;
    requests += 1;
    socket.write(REQUEST);
  });
  socket.on('error', () => {});
  socket.on('close', () => {
    errors += 1;
    load();
  });
}

const began = performance.now();
for (let number = 0; number < Number(connections); number++) load();
setTimeout(() => {
  const microseconds = Math.round(1000 * (performance.now() - began));
  process.stdout.write(`counts ${microseconds} ${requests} ${bytes} ${errors}\n`, () => process.exit());
}, 1000 * Number(seconds));
