import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {hashSync} from '@node-rs/bcrypt';
import test from 'ava';
import fc from 'fast-check';
import {type Backref, startBackref} from '../support/backref.ts';
import {plainManifest} from '../support/content.ts';
import {createFolder} from '../support/folder.ts';
import {pusherTo} from '../support/pusher.ts';
import {createRun} from '../support/shared.ts';
import {openWay, shared} from './ways.ts';

/** bcrypt with the lowest cost, made once. */
const HASHES = {one: hashSync('one', 4), two: hashSync('two', 4)};
type Password = keyof typeof HASHES;

const image = plainManifest();
const PATHS = [`/v2/app/manifests/${image.digest}`, '/v2/'];
const PULL = ['pull' as const];
const RULES = {
  'for pushes': [{who: ['anonymous'], where: ['**'], may: ['pull' as const, 'push' as const]}],
  'for users and robots': [{who: ['user:*', 'robot:*'], where: ['**'], may: PULL}],
  'for robots': [{who: ['robot:*'], where: ['**'], may: PULL}],
  'for everybody': [{who: ['anonymous', 'user:*', 'robot:*'], where: ['**'], may: PULL}],
};
type Rules = keyof typeof RULES;

type Step =
  | {do: 'write the users'; alice: Password | undefined}
  | {do: 'move time' | 'set the clock'; ms: number}
  | {do: 'create the robot'; expiresIn: number | undefined}
  | {do: 'revoke the robot' | 'get tokens'}
  | {do: 'reload'; rules: Rules};

const step: fc.Arbitrary<Step> = fc.oneof(
  fc
    .constantFrom('one' as const, 'two' as const, undefined)
    .map((alice) => ({do: 'write the users' as const, alice})),
  fc.constantFrom(0, 500, 1000, 5000, 310_000).map((ms) => ({do: 'move time' as const, ms})),
  fc.constantFrom(-5000, 500).map((ms) => ({do: 'set the clock' as const, ms})),
  fc.constantFrom(5000, undefined).map((expiresIn) => ({do: 'create the robot' as const, expiresIn})),
  fc.constant({do: 'revoke the robot' as const}),
  fc.constant({do: 'get tokens' as const}),
  fc
    .constantFrom('for users and robots' as const, 'for robots' as const, 'for everybody' as const)
    .map((rules) => ({do: 'reload' as const, rules})),
);

const basic = (username: string, secret: string): string =>
  `Basic ${Buffer.from(`${username}:${secret}`).toString('base64')}`;

const usersText = (alice: Password | undefined): string =>
  `bob:${HASHES.one}\n${alice === undefined ? '' : `alice:${HASHES[alice]}\n`}`;

/** A server with users and rules, and the credentials that are shown to it. */
class ServedLogins {
  readonly proxy: Backref;
  readonly #htpasswd: string;
  readonly #passwords = [basic('alice', 'one'), basic('alice', 'two'), basic('bob', 'one')];
  #secrets: string[] = [];
  #tokens: string[] = [];

  constructor(proxy: Backref, htpasswd: string) {
    this.proxy = proxy;
    this.#htpasswd = htpasswd;
  }

  /** The empty text is no credential. */
  get credentials(): string[] {
    return ['', ...this.#passwords, ...this.#secrets, ...this.#tokens];
  }

  async take(taken: Step): Promise<void> {
    const {proxy} = this;
    const {clock} = proxy;
    switch (taken.do) {
      case 'write the users':
        return writeFile(this.#htpasswd, usersText(taken.alice));
      case 'move time':
        return clock.move(taken.ms);
      case 'set the clock':
        return clock.moveWall(taken.ms);
      case 'create the robot':
        return this.#createRobot(taken.expiresIn);
      case 'revoke the robot':
        await (await proxy.server.commands()).revokeRobot({name: 'ci'}).catch(() => {});
        return;
      case 'get tokens':
        return this.#getTokens();
      case 'reload':
        proxy.reload({config: configOf(this.#htpasswd, taken.rules)});
    }
  }

  async #createRobot(expiresIn: number | undefined): Promise<void> {
    const commands = await this.proxy.server.commands();
    await commands.revokeRobot({name: 'ci'}).catch(() => {});
    const {secret} = await commands.createRobot({name: 'ci', may: PULL, on: ['**'], expiresIn});
    this.#secrets = [...this.#secrets, `Bearer ${secret}`, basic('x', secret)].slice(-4);
  }

  async #getTokens(): Promise<void> {
    for (const authorization of [...this.#passwords, ...this.#secrets]) {
      const path = '/token?service=backref&scope=repository:app:pull';
      const answer = await this.proxy.ask(path, {headers: {authorization}});
      if (answer.status === 200) this.#tokens.push(`Bearer ${(answer.json() as {token: string}).token}`);
    }
    this.#tokens = this.#tokens.slice(-4);
  }
}

const configOf = (htpasswd: string, rules: Rules) => ({access: {users: {htpasswd}, rules: RULES[rules]}});

test('whatever happens to logins in whatever order, nobody gets a prepared answer that the ordinary way denies', async (t) => {
  let compared = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, {minLength: 8, maxLength: 16}), async (steps) => {
      const scope = createRun();
      try {
        const htpasswd = join(await createFolder(scope), 'htpasswd');
        await writeFile(htpasswd, usersText('one'));
        const config = configOf(htpasswd, 'for pushes');
        const proxy = await startBackref(scope, {registries: [{push: 'local'}], config});
        await pusherTo(proxy, 'app').manifest(image);
        const served = new ServedLogins(proxy, htpasswd);
        await served.take({do: 'reload', rules: 'for users and robots'});
        const table = await openWay(scope, proxy.port, 'table');
        const ordinary = await openWay(scope, proxy.port, 'ordinary');
        for (const taken of steps) {
          await served.take(taken);
          for (const [credential, path] of served.credentials.flatMap(toEach)) {
            const field = credential === '' ? '' : `Authorization: ${credential}\r\n`;
            const text = `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${proxy.port}\r\n${field}\r\n`;
            const front = await openWay(scope, proxy.port, 'front');
            const answers = [await front.ask(text), await table.ask(text)];
            const expected = shared(await ordinary.ask(text));
            for (const answer of answers) {
              if (isServed(answer)) compared += 1;
              // A wrong password may be refused as such, or as one too many.
              const isEqual = isServed(answer) ? shared(answer) === expected : !isServed(expected);
              if (!isEqual) throw new Error(`${credential}: ${answer}\ninstead of\n${expected}`);
            }
          }
        }
      } finally {
        await scope.end();
      }
    }),
    {numRuns: 8},
  );
  t.true(compared > 200, String(compared));
});

const toEach = (credential: string) => PATHS.map((path) => [credential, path] as const);

const isServed = (answer: string): boolean => answer.startsWith('HTTP/1.1 200 ');
