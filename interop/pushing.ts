import type {Scope} from '../rig/scope.ts';
import type {UpstreamName} from '../rig/upstreams.ts';
import {type Before, urlOf} from './part.ts';
import {expectInUpstream, expectKept, expectUntouched, findThroughBackref} from './pushes/judge.ts';
import {PLACES, type PlaceKind, startGround} from './pushes/places.ts';
import {OURS, type ToolPush} from './pushes/push.ts';
import {messageOf} from './report.ts';
import {slug} from './slug.ts';

/** Tries one way to push in all modes, each with its own backref and repository. */
export async function runPushes(parent: Scope, push: ToolPush, before: Before): Promise<void> {
  for (const kind of PLACES) {
    const scope = await parent.child();
    const began = Date.now();
    const tried = await pushAndFind(scope, push, kind, before).then(
      (asked) => ({fault: undefined, asked}),
      (error: unknown) => ({fault: messageOf(error), asked: 0}),
    );
    await scope.end();
    before.done({case: kind.name, ...tried, ms: Date.now() - began});
  }
}

/**
 * Pushes, finds the content again with the same tool and byte by byte, and checks the upstream: when it should be
 * written, it has the same content; otherwise it is unchanged.
 * @returns the number of requests that reached the upstream until then
 */
async function pushAndFind(scope: Scope, push: ToolPush, kind: PlaceKind, before: Before): Promise<number> {
  const {tools} = before;
  const upstreamUrl = (name: UpstreamName) => urlOf(before, name);
  const repository = `push/${slug(push.name)}/${slug(kind.name)}`;
  const ground = await startGround(scope, kind, {repository, overlay: push.overlay, upstreamUrl});
  const {host, image, behind} = ground;
  const source = `${new URL(upstreamUrl('docker-registry')).host}/${OURS.repository}:${OURS.tag}`;

  const pushed = await push.push({scope, tools, host, image, source});
  const during = behind?.gate.take() ?? [];
  const found = await findThroughBackref(ground, pushed);
  const after = behind?.gate.take() ?? [];
  await pushed.find({scope: await scope.child(), tools, host, image});
  if (!behind) return 0;

  const seen = [...during, ...after, ...behind.gate.take()];
  if (kind.push === 'local') {
    await expectUntouched(behind, ground, seen);
    return seen.length;
  }
  expectKept(during, after);
  await expectInUpstream(behind, ground, pushed, found);
  const findDirectly = pushed.findDirectly ?? pushed.find;
  await findDirectly({scope: await scope.child(), tools, host: new URL(behind.url).host, image});
  return seen.length;
}
