import {chmod, mkdir, rm} from 'node:fs/promises';
import {createServer, type IncomingMessage, type Server, type ServerResponse} from 'node:http';
import {dirname, isAbsolute} from 'node:path';
import {text} from 'node:stream/consumers';
import type {RobotRequest} from '../identity/robots.ts';
import {parseDigest} from '../oci/digest.ts';
import {parseName, parseReference} from '../oci/name.ts';
import {parseUploadId} from '../oci/upload.ts';
import type {UsageOptions} from '../registry/maintenance/disk-usage.ts';
import type {IngestRequest} from '../registry/maintenance/ingest.ts';
import type {Commands, CommandTask} from './commands.ts';
import {type Failure, lineOf, type Message, NDJSON, socketPath} from './protocol.ts';

/** Receives commands for a running server from anyone who may write into its data folder. */
export interface AdminSocket {
  /**
   * Listens, for the owner of this process only. This process must have the folder to itself: an existing socket is taken
   * for one that a dead process left behind.
   * @throws the system's error
   */
  listen(): Promise<void>;
  /** Ends the running commands and removes the socket. Idempotent. */
  close(): Promise<void>;
}

const STOPPED: Failure = {message: 'the server is being stopped', stopped: true};

type CommandHandler = (options: Record<string, unknown>, task: CommandTask<unknown>) => Promise<unknown>;

interface AdminSocketParts {
  /** The data folder; it is created if it does not exist. */
  folder: string;
  commands: Commands;
  /** Called when the socket fails to accept connections later on, for example with EMFILE. */
  failed(error: Error): void;
}

export function createAdminSocket({folder, commands, failed}: AdminSocketParts): AdminSocket {
  const handlers = handlersOf(commands);
  const closing = new AbortController();
  const running = new Set<Promise<void>>();
  const server = createServer((request, response) => {
    const answering = answer(request, response)
      .catch(() => void response.destroy())
      .finally(() => running.delete(answering));
    running.add(answering);
  });
  server.on('error', (error) => {
    // Before the server listens, `listen` throws the error.
    if (server.listening) failed(error);
  });

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const run = handlers.get(request.url);
    const write = (message: Message) => void (response.destroyed || response.write(lineOf(message)));
    const left = new AbortController();
    response.once('close', () => left.abort());
    const signal = AbortSignal.any([closing.signal, left.signal]);
    response.writeHead(run ? 200 : 404, {'content-type': NDJSON}).flushHeaders();
    try {
      if (!run) throw new Error(`this server has no command ${request.url}: it is another version`);
      const options = JSON.parse(await text(request));
      signal.throwIfAborted();
      const result = await run(options, {signal, progress: (state) => write({progress: state})});
      write({result: result ?? null});
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      write({error: closing.signal.aborted ? STOPPED : {message}});
    }
    response.end();
  }

  return {
    async listen() {
      const path = await freePath(folder);
      await listening(server, path);
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

/** What is run for each path. */
const handlersOf = (commands: Commands): ReadonlyMap<string | undefined, CommandHandler> =>
  new Map<string | undefined, CommandHandler>([
    ['/reindex', (_options, task) => commands.reindex(task)],
    ['/collect', (options, task) => commands.collect({...parseCollect(options), ...task})],
    ['/verify', ({dryRun}, task) => commands.verify({dryRun: dryRun === true, ...task})],
    ['/index', (options, task) => commands.index({...parseIndex(options), ...task})],
    ['/ready', (options, task) => commands.ready({...parseReady(options), ...task})],
    [
      '/warm',
      (options, task) =>
        commands.warm({...parseReady(options), referrers: options['referrers'] === true, ...task}),
    ],
    ['/usage', (options, task) => commands.usage({...parseUsage(options), ...task})],
    ['/remove', (options, task) => commands.remove({...parseRemoval(options), ...task})],
    ['/pin', (options) => commands.pin(parseImages(options))],
    ['/unpin', (options) => commands.unpin(parseImages(options))],
    ['/pins', (_options, task) => commands.pins(task)],
    ['/who', ({digest}) => commands.who({digest: parseDigest(String(digest))})],
    ['/create-robot', (options) => commands.createRobot(parseRobot(options))],
    ['/robots', () => commands.robots()],
    ['/revoke-robot', ({name}) => commands.revokeRobot({name: String(name)})],
    ['/backup', (options, task) => commands.backup({...parseFolder(options), ...task})],
    ['/restore', (options, task) => commands.restore({...parseFolder(options), ...task})],
    ['/ingest', (options) => commands.ingest(parseIngest(options))],
  ]);

/** The path of the socket, with nothing there. */
async function freePath(folder: string): Promise<string> {
  await mkdir(folder, {recursive: true});
  const path = await socketPath(folder);
  await mkdir(dirname(path), {recursive: true});
  await rm(path, {force: true});
  return path;
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

/** @throws Error for options that none of our commands sends */
function parseIndex({repository, budget}: Record<string, unknown>): {repository: string; budget: number} {
  if (typeof repository !== 'string' || typeof budget !== 'number' || !(budget >= 1)) {
    throw new Error('index needs {"repository": a name, "budget": a number of at least 1}');
  }
  return {repository, budget};
}

/** As `parseIndex`. */
function parseCollect({grace}: Record<string, unknown>): {grace: number} {
  if (typeof grace !== 'number' || !(grace >= 0)) {
    throw new Error('collect needs {"grace": milliseconds, at least 0}');
  }
  return {grace};
}

/** As `parseIndex`. */
function parseFolder({folder}: Record<string, unknown>): {folder: string} {
  if (typeof folder !== 'string' || !isAbsolute(folder)) {
    throw new Error('this command needs {"folder": an absolute path}');
  }
  return {folder};
}

/** As `parseIndex`. */
function parseReady({platforms, ...options}: Record<string, unknown>): {
  images: string[];
  platforms: string[];
} {
  if (!isTexts(platforms))
    throw new Error('this command needs {"platforms": a list such as ["linux/amd64"]}');
  return {...parseImages(options), platforms};
}

/** As `parseIndex`. */
function parseUsage({by, top}: Record<string, unknown>): Pick<UsageOptions, 'by' | 'top'> {
  const isUnit = by === 'registry' || by === 'repository' || by === 'image';
  if (!isUnit || typeof top !== 'number' || !(top >= 0)) {
    throw new Error('du needs {"by": "registry", "repository" or "image", "top": a number of lines}');
  }
  return {by, top};
}

/** As `parseIndex`. */
function parseRobot({name, may, on, expiresIn}: Record<string, unknown>): RobotRequest {
  const isTime = expiresIn === undefined || typeof expiresIn === 'number';
  if (typeof name !== 'string' || !isTexts(may) || !isTexts(on) || !isTime)
    throw new Error('create-robot needs {"name", "may": actions, "on": patterns, "expiresIn": milliseconds}');
  return {name, may, on, expiresIn};
}

const parseRemoval = ({dryRun, ...options}: Record<string, unknown>) => ({
  ...parseImages(options),
  dryRun: dryRun === true,
});

/** As `parseIndex`. */
function parseImages({images}: Record<string, unknown>): {images: string[]} {
  if (!isTexts(images)) throw new Error('this command needs {"images": a list of names}');
  return {images};
}

const isTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((each) => typeof each === 'string');

/** As `parseIndex`. What becomes part of a path is parsed. */
function parseIngest({
  registry,
  repository,
  reference,
  mediaType,
  bytes,
  blobs,
}: Record<string, unknown>): IngestRequest {
  return {
    repository: {registry: String(registry), name: parseName(String(repository))},
    reference: parseReference(String(reference)),
    mediaType: String(mediaType),
    bytes: Buffer.from(String(bytes), 'base64'),
    blobs: (Array.isArray(blobs) ? blobs : []).map(({digest, spool}) => ({
      digest: parseDigest(String(digest)),
      spool: parseUploadId(String(spool)),
    })),
  };
}
