import {type Artifact, buildSmallImage} from '../catalog.ts';
import type {ClientResult, ClientTool} from '../clients.ts';
import type {Excuse} from '../judge.ts';
import type {Random} from '../random.ts';
import {recover} from '../recovery.ts';
import {checkPush} from '../requests.ts';
import {BAD_ANSWERS} from '../spoiling.ts';
import {HOSTED, traffic} from '../traffic.ts';
import {excuseOf, excuseOfPush, type World} from '../world.ts';
import type {Step} from './step.ts';

/** What clients print for a 404. */
const ABSENT = /MANIFEST_UNKNOWN|BLOB_UNKNOWN|NAME_UNKNOWN|not found|404/i;

function judge({tally}: World, what: string, {failure, wrong}: ClientResult, excuse: Excuse): boolean {
  if (wrong.length > 0) tally.violate('wrong bytes', `${what}: ${wrong.join(', ')}`);
  if (failure === undefined) return wrong.length === 0;
  tally.count('failures of crane, oras and skopeo');
  if (ABSENT.test(failure)) tally.violate('failures reported as absence', `${what}: ${failure}`);
  else if (excuse.reason === undefined) tally.violate('unavailable without a reason', `${what}: ${failure}`);
  return false;
}

async function pullWith(world: World, tool: ClientTool, registry: string, image: Artifact): Promise<void> {
  const reference = `${world.server.host}/${registry}/${image.repository}:${image.tag}`;
  const result = await world.clients.pull(tool, reference, image);
  const isWhole = judge(world, `${tool} pulls ${reference}`, result, excuseOf(world, registry));
  if (isWhole) world.tally.count(`pulls by ${tool}`);
}

async function pushWith(world: World, tool: ClientTool, random: Random): Promise<void> {
  const tag = `by-${tool}-${random.integer(0, 2 ** 48)}`;
  const artifact = buildSmallImage('team/clients', tag, tag);
  const pushed = {registry: HOSTED, artifact};
  world.model.pushing(HOSTED, artifact);
  const reference = `${world.server.host}/${HOSTED}/${artifact.repository}:${tag}`;
  const result = await world.clients.push(tool, reference, artifact);
  if (!judge(world, `${tool} pushes ${reference}`, result, excuseOfPush(world, HOSTED))) return;
  world.model.accepted(HOSTED, artifact);
  world.tally.count(`pushes by ${tool}`);
  await checkPush(world, pushed);
}

/** Each client pulls from an upstream and pushes, beside the own client's traffic. */
async function useEach(world: World, random: Random): Promise<void> {
  await Promise.all([
    traffic(world, random.fork('beside'), 30),
    ...world.clients.available.map(async (tool) => {
      const own = random.fork(tool);
      const [registry, images] = own.pick([...world.images]);
      await pullWith(world, tool, registry, own.pick(images));
      await pushWith(world, tool, own);
    }),
  ]);
}

export const CLIENT_STEPS: readonly Step[] = [
  {name: 'crane, oras and skopeo', fault: undefined, weight: 2, needs: 'clients', run: useEach},
  {
    name: 'crane, oras and skopeo while upstreams fail',
    fault: 'bad answers of upstreams',
    weight: 3,
    needs: 'clients',
    async run(world, random) {
      const plan = {share: 0.2, kinds: BAD_ANSWERS, seed: String(random.fraction())};
      const condition = {upstreams: 'upstreams spoil a fifth of their answers', isMangled: true};
      world.condition = {...world.condition, ...condition};
      for (const upstream of world.upstreams.values()) upstream.spoil(plan);
      await useEach(world, random);
      for (const upstream of world.upstreams.values()) upstream.spoil(undefined);
      await recover(world);
    },
  },
];
