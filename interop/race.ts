import {setTimeout as delay} from 'node:timers/promises';
import type {Scope} from '../rig/scope.ts';
import {attach} from './attachments/oras.ts';
import {inParallel} from './parallel.ts';
import {type Before, urlOf} from './part.ts';
import {LISTS} from './pushes/content.ts';
import {type Ground, type PlaceKind, startGround} from './pushes/places.ts';
import {attachByTag, readTag} from './pushes/tag-writer.ts';
import {messageOf} from './report.ts';

/** Artifacts attached through backref, and artifacts written directly at the same time. */
export const ATTACHES = 50;
/** At once, on each side. */
const CONCURRENCY = 8;
/** Milliseconds between a direct writer's read and write. */
const PAUSE = 50;
/** Milliseconds within which backref must have restored what the others overwrote. */
const PATIENCE = 60_000;

/**
 * Attaches to one image through backref while others rewrite the fallback tag in the upstream behind its back. In the
 * end everything that was attached through backref is in that tag and in backref's list; entries that the others lose
 * to each other do not count.
 */
export async function runRace(parent: Scope, kind: PlaceKind, before: Before): Promise<void> {
  const scope = await parent.child();
  const began = Date.now();
  const done = (asked: number, fault?: string) =>
    before.done({case: kind.name, fault, ms: Date.now() - began, asked});
  try {
    const options = {repository: 'push/race', overlay: 'deny', referrersTtl: '1s'} as const;
    const upstreamUrl = () => urlOf(before, 'docker-registry');
    const ground = await startGround(scope, kind, {...options, upstreamUrl});
    const ours = await race(scope, before, ground, upstreamUrl());
    await expectAllOfThem(ground, upstreamUrl(), ours);
    done(ground.behind?.gate.take().length ?? 0);
  } catch (error) {
    done(0, messageOf(error));
  } finally {
    await scope.end();
  }
}

/** @returns the digests of everything that was attached through backref */
async function race(scope: Scope, {tools}: Before, ground: Ground, upstream: string): Promise<string[]> {
  const ours = new Set<string>();
  const attachOne = async (number: number): Promise<void> => {
    const own = await scope.child();
    const artifactType = `application/vnd.example.report-${number}+json`;
    ours.add(await attach({scope: own, tools, ...ground}, [], artifactType));
    await own.end();
  };
  // One alone first: docker-registry 2.8 refuses a manifest while one of its blobs is being pushed again.
  await attachOne(0);
  const others = [...Array(ATTACHES - 1).keys()].map((number) => number + 1);
  const everyOther = async () => {
    const through = others.map((number) => () => attachOne(number));
    const direct = others.map(
      (number) => () => attachByTag(upstream, ground.image, number, () => delay(PAUSE)),
    );
    await Promise.all([inParallel(CONCURRENCY, through), inParallel(CONCURRENCY, direct)]);
  };
  // This one reads the tag before all others and writes it after them, so it undoes everything.
  await attachByTag(upstream, ground.image, 0, everyOther);
  if (ours.size === ATTACHES) return [...ours];
  throw new Error(`oras attached ${ours.size} instead of ${ATTACHES}`);
}

/** Waits until both lists have all of these. @throws Error that says how many are missing where */
async function expectAllOfThem(
  {url, image: {repository, index}}: Ground,
  upstream: string,
  ours: readonly string[],
): Promise<void> {
  const deadline = Date.now() + PATIENCE;
  const missingIn = (entries: readonly {digest: string}[]) =>
    ours.filter((digest) => !entries.some((entry) => entry.digest === digest)).length;
  for (;;) {
    const response = await fetch(`${url}/v2/${repository}/${LISTS.api(index.digest)}`);
    const {manifests = []}: {manifests?: {digest: string}[]} = JSON.parse(await response.text());
    const listed = missingIn(manifests);
    const tagged = missingIn(await readTag(upstream, repository, index.digest));
    if (listed === 0 && tagged === 0) return;
    if (Date.now() > deadline)
      throw new Error(
        `of ${ours.length} attached, the upstream's tag has lost ${tagged} and backref's list ${listed}`,
      );
    await delay(250);
  }
}
