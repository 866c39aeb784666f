import {readdir, readlink} from 'node:fs/promises';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {type RunningBackref, SOURCES, serveRegistries} from '../rig/backref.ts';
import {ownPort} from '../rig/port.ts';
import type {Scope} from '../rig/scope.ts';
import {createSurroundings, type Surroundings} from '../rig/surroundings.ts';

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
  return new Server(scope, options, await ownPort(), await createSurroundings(scope));
}

class Server implements ServerUnderTest {
  readonly url: string;
  readonly host: string;
  readonly folder: string;
  readonly file: string;
  readonly #scope: Scope;
  readonly #options: ServerOptions;
  readonly #port: number;
  readonly #surroundings: Surroundings;
  #passed = 0;
  #running: RunningBackref | undefined;

  constructor(scope: Scope, options: ServerOptions, port: number, surroundings: Surroundings) {
    this.#scope = scope;
    this.#options = options;
    this.#port = port;
    this.folder = options.folder;
    this.host = `127.0.0.1:${port}`;
    this.url = `http://${this.host}`;
    this.#surroundings = surroundings;
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
      flags: this.#surroundings.flags,
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
    return this.#surroundings.change({clockOffset: this.#passed + offset}, this.#running?.process);
  }

  advance(ms: number): Promise<void> {
    this.#passed += ms;
    return this.setClock(0);
  }

  setDns(works: boolean): Promise<void> {
    return this.#surroundings.change({dnsFails: !works}, this.#running?.process);
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
    const all = [...this.#surroundings.flags, SOURCES, ...args, '--config', this.file];
    try {
      const output = await this.#scope.run(process.execPath, all, {env: this.#env(), timeout: 120_000});
      return {output, succeeded: true};
    } catch (error) {
      return {output: error instanceof Error ? error.message : String(error), succeeded: false};
    }
  }

  #env(): NodeJS.ProcessEnv {
    return {
      ...process.env,
      ...this.#options.preloaded,
      NODE_COMPILE_CACHE: COMPILED,
      ...this.#surroundings.env,
    };
  }
}
