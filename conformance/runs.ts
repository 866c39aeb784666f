import type {Known} from './judge.ts';
import {KNOWN_IN_BOTH, KNOWN_IN_DEV} from './known.ts';
import {hosted, mirror, peer, type Server, through} from './servers.ts';

/** One run of the suite. */
export interface Run {
  /** What `--only` takes. */
  name: string;
  server: Server;
  /** Of the suite, apart from where it finds the server. */
  settings: Readonly<Record<string, unknown>>;
  /** Branches of the suite that are run each on its own; all at once when not given. */
  branches?: readonly Branch[];
  /** At least so many tests are run, as the suite counts them. */
  atLeast: number;
  aim: Aim;
}

export interface Branch {
  /** Names of tests begin with it. */
  name: string;
  /** Whether it asks for what the server was filled with. */
  asksForData: boolean;
}

export type Aim =
  /** Another registry: whatever comes of it is told, and what it passes is what a proxy before it must pass. */
  | {kind: 'shown'}
  /** All pass, but those that are known not to; with `beside`, none that the other run passes is lost. */
  | {kind: 'right'; known: readonly Known[]; beside?: string};

/** What 1.1 has as optional and what is being added to it; the suite's own default for `dev`. */
const DEV = {
  version: 'dev',
  apis: {
    blobs: {digestHeader: true, mountAnonymous: true, uploadCancel: true},
    manifests: {digestHeader: true, tagParam: true},
  },
  data: {sha512: true, nondistributable: true, emptyBlob: true},
};
const STABLE = {version: '1.1'};
/** A manifest some of whose parts were never pushed, which the suite leaves out unless it is asked for. */
const SPARSE = {data: {sparse: true}};
const READ_ONLY = {
  apis: {push: false, blobs: {delete: false}, manifests: {delete: false}, tags: {delete: false}},
};

/**
 * Without pushes the suite ends in a panic once it has run everything, before it writes its reports: it reports on
 * blobs that it never made. Branch by branch it reports all that it can try here.
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
const THROUGH = through('**backref**, `push: through` before');

/** In the order in which they are run and shown; one that another is compared with stands before it. */
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
