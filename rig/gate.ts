import {once} from 'node:events';
import {Agent, createServer, type IncomingMessage, request, type ServerResponse} from 'node:http';
import {setTimeout as delay} from 'node:timers/promises';
import {ownPort} from './port.ts';

export type GateMode = 'open' | 429 | 503;

/** A request that arrived at the gate. */
export interface Seen {
  method: string;
  /** Path and query. */
  url: string;
}

/** A counting HTTP proxy in front of an upstream, which can be made to fail as upstreams do. */
export interface Gate {
  readonly url: string;
  /** Passes requests on, or answers all of them with this status. */
  mode(mode: GateMode): void;
  /** Refuses new connections and resets open ones. */
  stop(): Promise<void>;
  /** Listens again, on the same port. */
  start(): Promise<void>;
  /** The requests since the last call. */
  take(): Seen[];
  /** Resolves when no request is under way and none has arrived for `ms` milliseconds. */
  quiet(ms: number): Promise<void>;
}

/**
 * Listens on a port of 127.0.0.1 before `upstream`, `http://host:port`.
 * @returns the gate, open; `stop` it at the end.
 */
export async function createGate(upstream: string): Promise<Gate> {
  const target = new URL(upstream);
  const port = await ownPort();
  const agent = new Agent({keepAlive: true});
  let mode: GateMode = 'open';
  let seen: Seen[] = [];
  let underWay = 0;
  let latest = 0;

  const server = createServer((incoming, outgoing) => {
    underWay += 1;
    outgoing.once('close', () => {
      underWay -= 1;
      latest = Date.now();
    });
    seen.push({method: incoming.method ?? '', url: incoming.url ?? ''});
    if (mode === 'open') return pass(incoming, outgoing, target, agent);
    incoming.resume();
    refuse(outgoing, mode);
  });
  const start = async () => {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  };
  await start();
  return {
    url: `http://127.0.0.1:${port}`,
    start,
    mode(next) {
      mode = next;
    },
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
        agent.destroy();
      }),
    take() {
      const taken = seen;
      seen = [];
      return taken;
    },
    async quiet(ms) {
      while (underWay > 0 || Date.now() - latest < ms) await delay(25);
    },
  };
}

function pass(incoming: IncomingMessage, outgoing: ServerResponse, target: URL, agent: Agent): void {
  const {method, url, headers} = incoming;
  const onward = request({agent, host: target.hostname, port: target.port, method, path: url, headers});
  onward.on('response', (response) => {
    outgoing.writeHead(response.statusCode ?? 502, response.rawHeaders);
    response.pipe(outgoing);
    response.on('error', () => outgoing.destroy());
  });
  onward.on('error', () => outgoing.destroy());
  outgoing.on('close', () => onward.destroy());
  incoming.pipe(onward);
}

/** Worded as by Docker Hub. `Retry-After` is short, so that a client that obeys it does not delay the run. */
function refuse(outgoing: ServerResponse, status: 429 | 503): void {
  const code = status === 429 ? 'TOOMANYREQUESTS' : 'UNAVAILABLE';
  outgoing.writeHead(status, {
    'content-type': 'application/json',
    ...(status === 429 ? {'retry-after': '1'} : {}),
  });
  outgoing.end(JSON.stringify({errors: [{code, message: `the gate answers ${status}`}]}));
}
