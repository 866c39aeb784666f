import {chmod, mkdir, rm} from 'node:fs/promises';
import {createServer, type IncomingMessage, type Server, type ServerResponse} from 'node:http';
import {dirname} from 'node:path';
import {text} from 'node:stream/consumers';
import type {Commands} from './commands.ts';
import {lineOf, type Message, NDJSON} from './messages.ts';
import {isOccupied} from './occupied.ts';
import {socketPath} from './socket-path.ts';

/** Takes commands for a server that runs, from who may write into its data folder. */
export interface AdminSocket {
  /**
   * Listens, for the owner of this process alone. What a process left behind that died is replaced.
   * @throws Occupied when another server works on the folder; else what the system says.
   */
  listen(): Promise<void>;
  /** Ends the commands that run, and removes the socket. Idempotent. */
  close(): Promise<void>;
}

/** Two servers on one folder would not see each other's downloads. */
export class Occupied extends Error {
  override readonly name = 'Occupied';
}

interface Task {
  signal: AbortSignal;
  progress(state: unknown): void;
}

type Run = (wish: Record<string, unknown>, task: Task) => Promise<unknown>;

/** @param folder the data folder; it is made when it is not there. */
export function createAdminSocket(folder: string, commands: Commands): AdminSocket {
  const tasks = new Map<string | undefined, Run>([
    ['/reindex', (_wish, task) => commands.reindex(task)],
    ['/collect', (wish, task) => commands.collect({...collectWish(wish), ...task})],
    ['/index', (wish, task) => commands.index({...indexWish(wish), ...task})],
  ]);
  const closing = new AbortController();
  const running = new Set<Promise<void>>();
  const server = createServer((request, response) => {
    const answering = answer(request, response)
      .catch(() => void response.destroy())
      .finally(() => running.delete(answering));
    running.add(answering);
  });

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const run = tasks.get(request.url);
    const write = (message: Message) => void (response.destroyed || response.write(lineOf(message)));
    const left = new AbortController();
    response.once('close', () => left.abort());
    const signal = AbortSignal.any([closing.signal, left.signal]);
    response.writeHead(run ? 200 : 404, {'content-type': NDJSON}).flushHeaders();
    try {
      if (!run) throw new Error(`this server has no command ${request.url}: it is of another version`);
      const wish = JSON.parse(await text(request));
      const result = await run(wish, {signal, progress: (state) => write({progress: state})});
      write({result});
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      write({error: {message: closing.signal.aborted ? 'the server is being stopped' : message}});
    }
    response.end();
  }

  return {
    async listen() {
      await mkdir(folder, {recursive: true});
      const path = await socketPath(folder);
      await mkdir(dirname(path), {recursive: true});
      try {
        await listening(server, path);
      } catch (error) {
        if (!isInUse(error)) throw error;
        if (await isOccupied(path)) {
          throw new Occupied(
            `another backref works on ${folder} and answers on ${path}: end it, or give this one a folder of its own with storage.blobs.path`,
          );
        }
        await rm(path, {force: true});
        await listening(server, path);
      }
      await chmod(path, 0o600);
      server.unref();
    },

    async close() {
      closing.abort(new Error('the server is being stopped'));
      if (!server.listening) return;
      await Promise.all(running);
      const ended = new Promise<void>((resolve) => void server.close(() => resolve()));
      server.closeAllConnections();
      await ended;
    },
  };
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

const isInUse = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && error.code === 'EADDRINUSE';

/** @throws Error that says what is wrong with a wish that no command of ours makes. */
function indexWish({repository, budget}: Record<string, unknown>): {repository: string; budget: number} {
  if (typeof repository !== 'string' || typeof budget !== 'number' || !(budget >= 1)) {
    throw new Error('index wants {"repository": a name, "budget": a number of at least 1}');
  }
  return {repository, budget};
}

/** As `indexWish`. */
function collectWish({grace}: Record<string, unknown>): {grace: number} {
  if (typeof grace !== 'number' || !(grace >= 0)) {
    throw new Error('collect wants {"grace": milliseconds, at least 0}');
  }
  return {grace};
}
