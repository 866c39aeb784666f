import type {Known} from './judge.ts';
import {KNOWN_IN_BOTH, KNOWN_IN_DEV} from './known.ts';
import {hosted, mirror, peer, type SuiteServer, through} from './servers.ts';

/** One run of the suite. */
export interface Run {
  /** The name for `--only`. */
  name: string;
  server: SuiteServer;
  /** The suite's settings, except the server's address. */
  settings: Readonly<Record<string, unknown>>;
  /** Branches of the suite that are run separately; all together when missing. */
  branches?: readonly Branch[];
  /** The minimum number of tests, as the suite counts them. */
  atLeast: number;
  aim: Aim;
}

export interface Branch {
  /** The prefix of the tests' names. */
  name: string;
  /** Whether it reads the content that the server was filled with. */
  asksForData: boolean;
}

export type Aim =
  /** Another registry: its result is only shown, and what it passes must pass through a proxy too. */
  | {kind: 'shown'}
  /** All tests must pass except the known ones; with `beside`, none that the other run passes may be lost. */
  | {kind: 'right'; known: readonly Known[]; beside?: string};

/** The optional features of 1.1 and those being added to it; the suite's own default for `dev`. */
const DEV = {
  version: 'dev',
  apis: {
    blobs: {digestHeader: true, mountAnonymous: true, uploadCancel: true},
    manifests: {digestHeader: true, tagParam: true},
  },
  data: {sha512: true, nondistributable: true, emptyBlob: true},
};
const STABLE = {version: '1.1'};
/** A manifest some of whose parts were never pushed, which the suite tests only on request. */
const SPARSE = {data: {sparse: true}};
const READ_ONLY = {
  apis: {push: false, blobs: {delete: false}, manifests: {delete: false}, tags: {delete: false}},
};

/**
 * Without pushes the suite panics after it has run everything and before it writes its reports, because it reports on
 * blobs that it never made. Run branch by branch, it reports everything that it can test here.
 */
const READ_ONLY_BRANCHES: readonly Branch[] = [
  {name: 'ping', asksForData: false},
  {name: 'empty', asksForData: false},
  {name: 'read-only', asksForData: true},
  {name: 'missing-manifest', asksForData: false},
  {name: 'invalid-digest-format/manifest-get', asksForData: false},
];

const right = (known: readonly Known[] = []): Aim => ({kind: 'right', known});
const SHOWN: Aim = {kind: 'shown'};

const HOSTED = hosted('**backref**, hosted');
const THROUGH = through('**backref**, `push: through` in front of');

/** In the order of running and showing; a run precedes those that are compared with it. */
export const RUNS: readonly Run[] = [
  {name: 'hosted 1.1', server: HOSTED, settings: STABLE, atLeast: 862, aim: right()},
  {name: 'hosted dev', server: HOSTED, settings: DEV, atLeast: 986, aim: right()},
  {
    name: 'hosted dev sparse',
    server: hosted('**backref**, hosted, `validate` off', {
      validate: {blobs: false, children: false, sizes: false},
    }),
    settings: {...DEV, data: {...DEV.data, ...SPARSE.data}},
    atLeast: 1032,
    aim: right(),
  },
  {
    name: 'read-only 1.1',
    server: mirror('**backref**, a mirror of'),
    settings: {...STABLE, ...READ_ONLY},
    branches: READ_ONLY_BRANCHES,
    atLeast: 85,
    aim: right(),
  },
  {name: 'docker-registry 1.1', server: peer('docker-registry'), settings: STABLE, atLeast: 848, aim: SHOWN},
  {
    name: 'through 1.1',
    server: THROUGH,
    settings: STABLE,
    atLeast: 860,
    aim: {kind: 'right', known: KNOWN_IN_BOTH, beside: 'docker-registry 1.1'},
  },
  {name: 'docker-registry dev', server: peer('docker-registry'), settings: DEV, atLeast: 990, aim: SHOWN},
  {
    name: 'through dev',
    server: THROUGH,
    settings: DEV,
    atLeast: 980,
    aim: {kind: 'right', known: [...KNOWN_IN_BOTH, ...KNOWN_IN_DEV], beside: 'docker-registry dev'},
  },
  {name: 'distribution 1.1', server: peer('distribution'), settings: STABLE, atLeast: 852, aim: SHOWN},
  {name: 'distribution dev', server: peer('distribution'), settings: DEV, atLeast: 994, aim: SHOWN},
  {name: 'olareg 1.1', server: peer('olareg'), settings: {...STABLE, ...SPARSE}, atLeast: 904, aim: SHOWN},
  {
    name: 'olareg dev',
    server: peer('olareg'),
    settings: {...DEV, data: {...DEV.data, ...SPARSE.data}},
    atLeast: 1028,
    aim: SHOWN,
  },
];

/**
 * The runs of this name, or else those whose name contains `text`, and those that they are compared with.
 * @throws Error when there are none
 */
export function matching(text: string): Run[] {
  const wanted = text.toLowerCase();
  const exact = RUNS.filter(({name}) => name === wanted);
  const chosen = exact.length > 0 ? exact : RUNS.filter(({name}) => name.includes(wanted));
  if (chosen.length === 0)
    throw new Error(`no run is called "${text}"; there are: ${RUNS.map(({name}) => name).join('; ')}`);
  const needed = new Set(
    chosen.flatMap(({name, aim}) => (aim.kind === 'right' && aim.beside ? [name, aim.beside] : [name])),
  );
  return RUNS.filter(({name}) => needed.has(name));
}
