import {join} from 'node:path';
import {type RunningBackref, SOURCES, startBackref} from '../rig/backref.ts';
import {createGate, type Gate, type GateMode, type Seen} from '../rig/gate.ts';
import type {Image} from '../rig/image.ts';
import type {Scope} from '../rig/scope.ts';
import type {Toolbox} from '../rig/tools.ts';
import type {Client} from './clients/client.ts';
import {type CaseOutcome, messageOf} from './report.ts';

/** In the order of running and showing. */
export const CASES = ['cold', 'warm', 'upstream says 429', 'upstream says 503', 'upstream stopped'] as const;
export type CaseName = (typeof CASES)[number];

export interface ClientRun {
  tools: Toolbox;
  client: Client;
  /** The registry that holds the images, `http://host:port`. */
  upstream: string;
  images: readonly Image[];
  /** Called with each case when it is done. */
  done(outcome: CaseOutcome): void;
}

const FAILURES: readonly [CaseName, GateMode | 'stopped'][] = [
  ['upstream says 429', 429],
  ['upstream says 503', 503],
  ['upstream stopped', 'stopped'],
];

/**
 * Runs all cases with one client: pulls through an empty backref, then through the same one, then with
 * the upstream failing, through new processes that use its cache and revalidate each tag.
 */
export async function runCases(
  parent: Scope,
  {tools, client, upstream, images, done}: ClientRun,
): Promise<void> {
  const scope = await parent.child();
  const gate = await createGate(upstream);
  scope.defer(gate.stop);
  // The upstreams fail permanently here, so retries would only take time.
  const settings = {
    main: SOURCES,
    upstream: gate.url,
    folder: join(scope.folder, 'cache'),
    headersTimeout: '1s',
  };

  const attempt = async (
    name: CaseName,
    server: () => Promise<RunningBackref>,
    judge: Judge,
  ): Promise<boolean> => {
    const own = await scope.child();
    const began = Date.now();
    let fault: string | undefined;
    let seen: Seen[] = [];
    try {
      const {host} = await server();
      gate.take();
      await client.pull({scope: own, tools, host, images}).finally(() => {
        seen = gate.take();
      });
      fault = judge(seen);
    } catch (error) {
      fault = messageOf(error);
    }
    await own.end();
    done({case: name, fault, ms: Date.now() - began, asked: seen.length});
    return fault === undefined;
  };

  try {
    let running: Promise<RunningBackref> | undefined;
    const lasting = () => (running ??= startBackref(scope, {...settings, ttl: '1h'}));
    const cold = await attempt('cold', lasting, askedOnce);
    if (cold) {
      await attempt('warm', lasting, askedNothing);
      await (await lasting()).process.stop();
    }
    for (const [name, failure] of FAILURES) {
      if (!cold) break;
      const restore = await fail(gate, failure);
      // A new process each time: none knows of the failure before, and each starts while its upstream fails.
      const next = await scope.child();
      const server = () => startBackref(next, {...settings, ttl: '0s'});
      await attempt(name, server, failure === 'stopped' ? accept : askedInVain);
      await next.end();
      await restore();
    }
    for (const name of cold ? [] : CASES.slice(1)) {
      done({case: name, fault: 'not tried, since the cold pull failed', ms: 0, asked: 0});
    }
  } finally {
    await scope.end();
  }
}

/** What is wrong with the requests to the upstream; undefined when nothing is. */
type Judge = (seen: readonly Seen[]) => string | undefined;

async function fail(gate: Gate, how: GateMode | 'stopped'): Promise<() => Promise<void> | void> {
  if (how === 'stopped') {
    await gate.stop();
    return gate.start;
  }
  gate.mode(how);
  return () => gate.mode('open');
}

/** For a cold pull: no blob is downloaded twice. */
const askedOnce: Judge = (seen) => {
  const downloads = seen
    .filter(({method, url}) => method === 'GET' && url.includes('/blobs/'))
    .map(({url}) => url);
  const twice = downloads.find((url, position) => downloads.indexOf(url) !== position);
  return twice && `the upstream was asked for ${twice} more than once`;
};

/** For a warm pull with fresh tags: there are no requests to the upstream. */
const askedNothing: Judge = ([first, ...more]) =>
  first && `the upstream was asked again: ${first.method} ${first.url} and ${more.length} more`;

/** For a pull while the upstream fails: there were requests, so the answers were really stale ones. */
const askedInVain: Judge = (seen) =>
  seen.length > 0 ? undefined : 'the upstream was not asked, so this shows nothing about its failing';

/** For a pull while connections are refused, which cannot be counted. */
const accept: Judge = () => undefined;
