import type {Seen} from '../../rig/gate.ts';
import {expectSame} from '../clients/client.ts';
import {LISTS, pullReferrers, pullWhole} from './content.ts';
import type {Ground, RegistryBehind} from './places.ts';
import type {PushedContent} from './push.ts';

/** Its index changes with each referrer, so it is read each time before it is written. */
const FALLBACK_TAG = /\/sha(256|512)-/;

/** The pushed content as a registry serves it: the digests of the manifests and of the referrers. */
interface Found {
  manifests: string[];
  referrers: string[];
}

/** Pulls everything that was pushed through backref and hashes each byte. @throws Error */
export async function findThroughBackref({url, image}: Ground, pushed: PushedContent): Promise<Found> {
  const manifests = await pullManifests(url, pushed);
  const {subject, count} = pushed.attached;
  const referrers = await pullReferrers(url, image.repository, LISTS.api(subject), subject);
  if (referrers.length !== count)
    throw new Error(`${count} were attached, but backref lists ${referrers.join(', ') || 'none'}`);
  return {manifests, referrers};
}

/** Checks that the upstream has the same. @throws Error */
export async function expectInUpstream(
  {name, url}: RegistryBehind,
  {image}: Ground,
  pushed: PushedContent,
  found: Found,
): Promise<void> {
  const {subject} = pushed.attached;
  const list = name === 'olareg' ? LISTS.api : LISTS.tag;
  expectSame('what the upstream has', found.manifests, await pullManifests(url, pushed));
  const referrers = await pullReferrers(url, image.repository, list(subject), subject);
  expectSame('what the upstream lists', found.referrers, referrers);
}

/** Checks that the upstream was only read and is unchanged, and that backref still serves it. @throws Error */
export async function expectUntouched(
  {url}: RegistryBehind,
  ground: Ground,
  seen: readonly Seen[],
): Promise<void> {
  const write = seen.find(({method}) => method !== 'GET' && method !== 'HEAD');
  if (write) throw new Error(`the upstream was written to: ${write.method} ${write.url}`);
  const {repository, tag, index} = ground.image;
  const listed = await fetch(`${url}/v2/${repository}/tags/list`);
  const {tags}: {tags: string[]} = JSON.parse(await listed.text());
  expectSame('the list of tags of the upstream', [tag], tags);
  expectSame('the image in the upstream', [index.digest], [await pullWhole(url, repository, tag)]);
  expectSame('its image through backref', [index.digest], [await pullWhole(ground.url, repository, tag)]);
}

/**
 * Checks that the first pull after a push requests nothing from the upstream that backref has already seen.
 * @param before the requests during the push
 * @throws Error naming the repeated requests
 */
export function expectKept(before: readonly Seen[], during: readonly Seen[]): void {
  const passed = before
    .filter(({method}) => method === 'PUT')
    .map(({url}) => /\/manifests\/[^?]+|(?<=[?&]digest=)[^&]+/.exec(url)?.[0] ?? '')
    .map(decodeURIComponent)
    .filter((each) => !FALLBACK_TAG.test(each));
  const again = during.find(({url}) => passed.some((each) => each !== '' && url.endsWith(each)));
  if (again)
    throw new Error(
      `content that had just passed through was requested from the upstream again: ${again.method} ${again.url}`,
    );
}

async function pullManifests(url: string, {manifests}: PushedContent): Promise<string[]> {
  const digests: string[] = [];
  for (const {repository, reference, digest} of manifests) {
    const found = await pullWhole(url, repository, reference);
    if (digest) expectSame(reference, [digest], [found]);
    digests.push(found);
  }
  return digests;
}
