import {randomUUID} from 'node:crypto';
import type {Action, Grant} from '../caller.ts';
import type {Clock} from '../clock.ts';
import {parsePlaceGlob} from '../oci/image-glob.ts';
import type {Metadata, RobotRecord} from '../storage/metadata.ts';
import type {Attempts} from './attempts.ts';
import {
  type Credential,
  type HeldIdentity,
  type Identity,
  type LoginMethod,
  LoginRefused,
} from './authenticator.ts';
import {createRobotSecret, hashOfRobotSecret, isRobotSecret, isWholeRobotSecret} from './robot-secret.ts';

/** What an operator asks for. */
export interface RobotRequest {
  name: string;
  may: readonly string[];
  on: readonly string[];
  /** Milliseconds until it expires; undefined for never. */
  expiresIn: number | undefined;
}

/** A robot as an operator sees it; times as ISO 8601 writes them. */
export interface RobotStatus {
  name: string;
  may: readonly string[];
  on: readonly string[];
  created: string;
  /** Null for one that does not expire. */
  expires: string | null;
  isExpired: boolean;
  /** Null for one that was not used yet. It may lag by a minute. */
  lastUsed: string | null;
}

export interface CreatedRobot extends RobotStatus {
  /** Known to nobody but the caller: it is stored nowhere. */
  secret: string;
}

export interface RobotList {
  robots: readonly RobotStatus[];
}

/** The tokens of machines: each a secret, and what it may do. */
export interface Robots extends LoginMethod {
  /** Reads them, unless that was done. Until then nobody can log in as one. */
  load(): Promise<void>;
  /** @throws Error that says what is wrong with the request */
  create(request: RobotRequest): Promise<CreatedRobot>;
  list(): Promise<RobotList>;
  /** From the next request on, its secret and the tokens that it got are refused. @throws Error for an unknown name */
  revoke(name: string): Promise<RobotStatus>;
  /** Writes when they were used. */
  flush(): Promise<void>;
}

const ACTIONS: readonly string[] = ['pull', 'push', 'delete', 'attach', 'admin'] satisfies Action[];
const NAME = /^[a-z0-9][a-z0-9._-]{0,63}$/;
/** All of them are in memory. */
const MAX_ROBOTS = 10_000;
const MAX_PATTERNS = 100;

export interface RobotsParts {
  metadata: Metadata;
  attempts: Attempts;
  /** Called when there is another robot, or one less. */
  changed(): void;
  clock: Pick<Clock, 'now'>;
}

export const createRobots = (parts: RobotsParts): Robots => new StoredRobots(parts);

/** A robot in memory. */
interface Robot {
  record: RobotRecord;
  readonly identity: Identity;
}

class StoredRobots implements Robots {
  readonly name = 'robot';
  readonly #metadata: Metadata;
  readonly #attempts: Attempts;
  readonly #changed: () => void;
  readonly #clock: Pick<Clock, 'now'>;
  readonly #byHash = new Map<string, Robot>();
  readonly #byId = new Map<string, Robot>();
  /** Those whose last use is not written yet. */
  readonly #used = new Map<string, number>();
  #loading: Promise<void> | undefined;
  /** Creations and revocations happen one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  constructor({metadata, attempts, changed, clock}: RobotsParts) {
    this.#metadata = metadata;
    this.#attempts = attempts;
    this.#changed = changed;
    this.#clock = clock;
  }

  isOpen(): boolean {
    return this.#byId.size > 0;
  }

  owns(secret: string): boolean {
    return isRobotSecret(secret);
  }

  load(): Promise<void> {
    this.#loading ??= this.#read();
    return this.#loading;
  }

  async check({scheme, secret, address}: Credential): Promise<Identity | undefined> {
    if (!isRobotSecret(secret)) return undefined;
    const robot = this.#shown(secret);
    // One that is known was not guessed: it counts as no attempt, whatever others try from the same address.
    if (robot && !this.#isExpired(robot.record)) return this.#use(robot);
    const refusal = (why: string) =>
      new LoginRefused(`the robot's secret ${why}`, {
        isToken: scheme === 'bearer',
        claimed: robot?.identity.names[0],
      });
    if (robot) throw refusal('has expired');
    return this.#attempts.run(address, async () => {
      throw refusal(
        isWholeRobotSecret(secret)
          ? 'is unknown, or was revoked'
          : 'is mistyped or cut off: its checksum is wrong',
      );
    });
  }

  remembered({secret}: Pick<Credential, 'secret'>): HeldIdentity | undefined {
    const robot = isRobotSecret(secret) ? this.#shown(secret) : undefined;
    if (!robot || this.#isExpired(robot.record)) return undefined;
    const {identity} = robot;
    return {identity, until: identity.until ?? Number.POSITIVE_INFINITY};
  }

  used(id: string, at: number): void {
    const robot = this.#byId.get(id);
    if (robot && at > (robot.record.usedAt ?? 0)) this.#use(robot, at);
  }

  recall(_own: Identity, id: string): Identity | undefined {
    const robot = this.#byId.get(id);
    return robot && !this.#isExpired(robot.record) ? this.#use(robot) : undefined;
  }

  async create(request: RobotRequest): Promise<CreatedRobot> {
    return this.#inTurn(async () => {
      const fault = this.#whyNot(request);
      if (fault !== undefined) throw new Error(fault);
      const {name, may, on, expiresIn} = request;
      const secret = createRobotSecret();
      const createdAt = this.#clock.now();
      const record: RobotRecord = {
        name,
        id: randomUUID(),
        secretHash: hashOfRobotSecret(secret),
        may,
        on,
        createdAt,
        expiresAt: expiresIn === undefined ? undefined : createdAt + expiresIn,
        usedAt: undefined,
      };
      await this.#metadata.commit([{type: 'robot.put', robot: record}]);
      this.#keep(record);
      return {...this.#statusOf(record), secret};
    });
  }

  async list(): Promise<RobotList> {
    await this.load();
    const records = [...this.#byId.values()].map(({record}) => record);
    const inOrder = records.toSorted((one, other) => (one.name < other.name ? -1 : 1));
    return {robots: inOrder.map((record) => this.#statusOf(record))};
  }

  async revoke(name: string): Promise<RobotStatus> {
    return this.#inTurn(async () => {
      const robot = this.#named(name);
      if (!robot)
        throw new Error(`there is no robot "${name}"; "backref token ls" lists those that are here`);
      const {record} = robot;
      // First in memory: whatever happens to the commit, this process takes the secret no more.
      this.#byId.delete(record.id);
      this.#byHash.delete(record.secretHash);
      this.#changed();
      await this.#metadata.commit([{type: 'robot.delete', id: record.id}]);
      return this.#statusOf(record);
    });
  }

  async flush(): Promise<void> {
    const used = [...this.#used];
    if (used.length === 0) return;
    this.#used.clear();
    await this.#metadata.commit(used.map(([id, at]) => ({type: 'robot.use', id, at})));
  }

  async #read(): Promise<void> {
    try {
      for (const record of await this.#metadata.robots()) this.#keep(record);
    } catch (error) {
      this.#loading = undefined;
      throw error;
    }
  }

  #keep(record: RobotRecord): void {
    const {name, id, expiresAt} = record;
    const bound: Grant = {may: record.may as Action[], on: record.on};
    const identity: Identity = {
      names: [`robot:${name}`],
      bound,
      until: expiresAt,
      source: {method: this.name, id},
    };
    const robot = {record, identity};
    this.#byHash.set(record.secretHash, robot);
    this.#byId.set(id, robot);
    this.#changed();
  }

  /** Whose secret it is, whether or not it has expired. */
  #shown(secret: string): Robot | undefined {
    return isWholeRobotSecret(secret) ? this.#byHash.get(hashOfRobotSecret(secret)) : undefined;
  }

  #named(name: string): Robot | undefined {
    return [...this.#byId.values()].find(({record}) => record.name === name);
  }

  #use(robot: Robot, at = this.#clock.now()): Identity {
    robot.record = {...robot.record, usedAt: at};
    this.#used.set(robot.record.id, at);
    return robot.identity;
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    await this.load();
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => {});
    return turn;
  }

  #whyNot({name, may, on, expiresIn}: RobotRequest): string | undefined {
    if (!NAME.test(name))
      return `"${name}" is not a name for a robot: it has up to 64 lower-case letters, digits and . _ -, and begins with a letter or a digit`;
    if (this.#named(name))
      return `there is a robot "${name}" already: choose another name, or revoke that one first`;
    const unknown = may.find((action) => !ACTIONS.includes(action));
    if (unknown !== undefined) return `"${unknown}" is not an action: allowed are ${ACTIONS.join(', ')}`;
    if (may.length === 0) return `a robot needs an action: allowed are ${ACTIONS.join(', ')}`;
    const wrong = on.find((pattern) => !parsePlaceGlob(pattern));
    if (wrong !== undefined)
      return `"${wrong}" is not a pattern for places: write registry/repository with an optional :tag, e.g. apps.local/team-*/**`;
    if (on.length === 0 || on.length > MAX_PATTERNS) return `a robot needs from 1 to ${MAX_PATTERNS} places`;
    if (expiresIn !== undefined && !(expiresIn > 0)) return 'a robot cannot expire before it was made';
    if (this.#byId.size >= MAX_ROBOTS)
      return `there are ${MAX_ROBOTS} robots already: revoke those that are not used`;
    return undefined;
  }

  #isExpired({expiresAt}: RobotRecord): boolean {
    return expiresAt !== undefined && expiresAt <= this.#clock.now();
  }

  #statusOf(record: RobotRecord): RobotStatus {
    const {name, may, on, createdAt, expiresAt, usedAt} = record;
    const written = (at: number | undefined) => (at === undefined ? null : new Date(at).toISOString());
    return {
      name,
      may,
      on,
      created: new Date(createdAt).toISOString(),
      expires: written(expiresAt),
      isExpired: this.#isExpired(record),
      lastUsed: written(usedAt),
    };
  }
}
