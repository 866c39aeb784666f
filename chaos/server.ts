import {readdir, readFile, readlink, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {setTimeout as delay} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';
import {type RunningBackref, SOURCES, serveRegistries} from '../rig/backref.ts';
import {ownPort} from '../rig/port.ts';
import type {Scope} from '../rig/scope.ts';

const PRELOAD = fileURLToPath(new URL('preload.ts', import.meta.url));
const COMPILED = fileURLToPath(new URL('../node_modules/.cache/compiled', import.meta.url));

export interface ServerOptions {
  /** Of all data; it outlives the process. */
  folder: string;
  registries: Record<string, unknown>;
  settings: Record<string, unknown>;
  /** A library that is loaded before all others, and the variables that it reads. */
  preloaded?: Record<string, string>;
}

/** The server under test: one process after another, on the same port and the same folder. */
export interface ServerUnderTest {
  readonly url: string;
  readonly host: string;
  readonly folder: string;
  /** The configuration file. */
  readonly file: string;
  /** The end of what the process printed. */
  output(): string;
  /** False once the process has ended. */
  isRunning(): boolean;
  start(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** SIGTERM; resolves when the process has ended. */
  stop(): Promise<void>;
  /** Milliseconds that the wall clock of the server is off. */
  setClock(offset: number): Promise<void>;
  /** Lets so many milliseconds pass on the wall clock, as if the run took as long. */
  advance(ms: number): Promise<void>;
  /** Whether the server can resolve names. */
  setDns(works: boolean): Promise<void>;
  /** The targets of its open descriptors. */
  descriptors(): Promise<string[]>;
  /** The sum of each metric over all its labels. */
  metrics(): Promise<Map<string, number>>;
  /** Undefined before the first start. */
  pid(): number | undefined;
  /** Runs a command of backref with the configuration of this server. @returns its output, and whether it exited with 0 */
  command(...args: string[]): Promise<{output: string; succeeded: boolean}>;
}

/** @param scope what starts here ends with it. */
export async function createServerUnderTest(scope: Scope, options: ServerOptions): Promise<ServerUnderTest> {
  const server = new Server(scope, options, await ownPort());
  await server.writeControl();
  return server;
}

class Server implements ServerUnderTest {
  readonly url: string;
  readonly host: string;
  readonly folder: string;
  readonly file: string;
  readonly #scope: Scope;
  readonly #options: ServerOptions;
  readonly #port: number;
  readonly #controlFile: string;
  #control = {version: 0, clockOffset: 0, dnsFails: false};
  #passed = 0;
  #running: RunningBackref | undefined;

  constructor(scope: Scope, options: ServerOptions, port: number) {
    this.#scope = scope;
    this.#options = options;
    this.#port = port;
    this.folder = options.folder;
    this.host = `127.0.0.1:${port}`;
    this.url = `http://${this.host}`;
    this.#controlFile = join(scope.folder, 'control.json');
    this.file = join(scope.folder, `backref-${port}.yaml`);
  }

  output(): string {
    return this.#running?.process.output() ?? '';
  }

  isRunning(): boolean {
    return this.#running !== undefined && !this.#running.process.ended();
  }

  async start(): Promise<void> {
    const {folder, registries, settings} = this.#options;
    this.#running = undefined;
    await serveRegistries(this.#scope, {
      main: SOURCES,
      folder,
      registries,
      settings,
      port: this.#port,
      flags: ['--import', PRELOAD],
      env: this.#env(),
      started: (running) => {
        this.#running = running;
      },
    });
  }

  async kill(): Promise<void> {
    await this.#running?.process.kill('SIGKILL');
  }

  async stop(): Promise<void> {
    await this.#running?.process.kill('SIGTERM');
  }

  setClock(offset: number): Promise<void> {
    return this.#change({clockOffset: this.#passed + offset});
  }

  advance(ms: number): Promise<void> {
    this.#passed += ms;
    return this.setClock(0);
  }

  setDns(works: boolean): Promise<void> {
    return this.#change({dnsFails: !works});
  }

  async descriptors(): Promise<string[]> {
    const folder = `/proc/${this.#running?.process.pid}/fd`;
    const names = await readdir(folder).catch(() => []);
    const targets = await Promise.all(names.map((name) => readlink(join(folder, name)).catch(() => '')));
    return targets.filter((target) => target !== '');
  }

  async metrics(): Promise<Map<string, number>> {
    const response = await fetch(`${this.url}/metrics`);
    const sums = new Map<string, number>();
    for (const line of (await response.text()).split('\n')) {
      const [, name = '', value] = /^(\w+)(?:\{.*\})? (\S+)$/.exec(line) ?? [];
      if (name) sums.set(name, (sums.get(name) ?? 0) + Number(value));
    }
    return sums;
  }

  pid(): number | undefined {
    return this.#running?.process.pid;
  }

  async command(...args: string[]): Promise<{output: string; succeeded: boolean}> {
    const all = [...['--import', PRELOAD, SOURCES], ...args, '--config', this.file];
    try {
      const output = await this.#scope.run(process.execPath, all, {env: this.#env(), timeout: 120_000});
      return {output, succeeded: true};
    } catch (error) {
      return {output: error instanceof Error ? error.message : String(error), succeeded: false};
    }
  }

  /** Writes what `preload.ts` reads. */
  async writeControl(): Promise<void> {
    await writeFile(this.#controlFile, JSON.stringify(this.#control));
  }

  #env(): NodeJS.ProcessEnv {
    return {
      ...process.env,
      ...this.#options.preloaded,
      NODE_COMPILE_CACHE: COMPILED,
      CHAOS_CONTROL: this.#controlFile,
    };
  }

  async #change(change: {clockOffset?: number; dnsFails?: boolean}): Promise<void> {
    this.#control = {...this.#control, ...change, version: this.#control.version + 1};
    await this.writeControl();
    if (!this.isRunning() || !this.#running) return;
    process.kill(this.#running.process.pid, 'SIGUSR2');
    const seen = `${this.#controlFile}.seen`;
    while (this.isRunning() && Number(await readFile(seen, 'utf8')) !== this.#control.version) await delay(5);
  }
}
