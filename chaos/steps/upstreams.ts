import type {Random} from '../random.ts';
import {recover} from '../recovery.ts';
import {pullImage} from '../requests.ts';
import {SPOILS, type Spoil} from '../spoiling.ts';
import {traffic} from '../traffic.ts';
import type {World} from '../world.ts';
import type {Step} from './step.ts';

const ACTS = 60;

/** Lets clients work while upstreams fail, then ends the failure and waits until all is well. */
async function whileFailing(
  world: World,
  random: Random,
  how: string,
  {begin, end}: {begin(): Promise<void> | void; end(): Promise<void> | void},
): Promise<void> {
  await traffic(world, random.fork('before'), ACTS / 2);
  const isMangled = how.endsWith('wrong bytes');
  world.condition = {...world.condition, upstreams: how, isMangled};
  await begin();
  await traffic(world, random.fork('while'), ACTS);
  await end();
  await recover(world);
}

const spoiling = (spoil: Spoil): Step => ({
  name: `upstreams: ${spoil}`,
  fault: spoil,
  weight: 3,
  run(world, random) {
    const plan = {share: random.chance(0.3) ? 1 : 0.3, kinds: [spoil], seed: String(random.fraction())};
    return whileFailing(world, random, `upstreams answer with: ${spoil}`, {
      begin() {
        for (const upstream of world.upstreams.values()) upstream.spoil(plan);
      },
      end() {
        for (const upstream of world.upstreams.values()) upstream.spoil(undefined);
      },
    });
  },
});

export const UPSTREAM_STEPS: readonly Step[] = [
  ...SPOILS.map(spoiling),
  {
    name: 'upstreams: connections refused',
    fault: 'connection refused',
    weight: 3,
    run: (world, random) =>
      whileFailing(world, random, 'upstreams refuse connections', {
        async begin() {
          for (const upstream of world.upstreams.values()) await upstream.refuse();
        },
        async end() {
          for (const upstream of world.upstreams.values()) await upstream.listen();
        },
      }),
  },
  {
    name: 'the token service is down',
    fault: 'token service down',
    weight: 4,
    run(world, random) {
      const outage = random.pick(['refused', 'status 503', 'HTML page with 200', 'silence'] as const);
      const services = [...world.upstreams.values()].flatMap(({tokens}) => tokens ?? []);
      return whileFailing(world, random, `the token service: ${outage}`, {
        async begin() {
          for (const service of services) {
            service.revoke();
            if (outage === 'refused') await service.refuse();
            else service.fail(outage);
          }
        },
        async end() {
          for (const service of services) {
            service.fail(undefined);
            await service.listen();
          }
        },
      });
    },
  },
  {
    name: 'tags move',
    fault: 'moved tags',
    weight: 2,
    async run(world, random) {
      for (const [registry, upstream] of world.upstreams) {
        const image = random.pick(world.images.get(registry) ?? []);
        upstream.move(image.repository, 'latest', image.manifest.digest);
        world.model.moved(registry, image.repository, 'latest', image.manifest.digest);
        await pullImage(world, registry, {...image, tag: 'latest'});
      }
      await traffic(world, random.fork('after'), ACTS / 2);
    },
  },
  {
    name: 'DNS failure',
    fault: 'DNS failure',
    weight: 4,
    run: (world, random) =>
      whileFailing(world, random, 'names cannot be resolved', {
        async begin() {
          await world.server.setDns(false);
          // Connections that are open need no name.
          for (const upstream of world.upstreams.values()) upstream.disconnect();
        },
        end: () => world.server.setDns(true),
      }),
  },
];
