import type {ExecutionContext, TestFn} from 'ava';
import type {Claim, Coordination} from '../../src/storage/coordination.ts';
import type {Metadata} from '../../src/storage/metadata.ts';

/** Each that joins stands for another part of the program, or for another process. */
export interface Claimants {
  /** Where commits that name a claim's fence are made. */
  metadata: Metadata;
  join(): Coordination;
}

const KEY = 'garbage';
const TTL_MS = 10_000;
const CHANGE = {type: 'blob-store.put', id: 'changed'} as const;

/** What every implementation of the coordination port does. */
export function coordinationContract(
  test: TestFn,
  title: string,
  create: (t: ExecutionContext) => Promise<Claimants>,
): void {
  test(`${title}: one of many claimants gets a key, and the next one gets it when it is released`, async (t) => {
    const {join} = await create(t);
    const all = Array.from({length: 8}, join);
    const claims = await Promise.all(all.map((coordination) => coordination.claim(KEY, TTL_MS)));
    const mine = claims.filter((claim) => claim.mine);
    t.is(mine.length, 1);
    const [holder] = claims.filter((claim) => !claim.mine);
    await mine[0]?.release();
    await holder?.released();
    const again = await Promise.all(all.map((coordination) => coordination.claim(KEY, TTL_MS)));
    t.is(again.filter((claim) => claim.mine).length, 1);
  });

  test(`${title}: different keys can be held at the same time`, async (t) => {
    const {join} = await create(t);
    const [one, two] = [join(), join()];
    t.true((await one.claim('upload 1', TTL_MS)).mine);
    t.true((await two.claim('upload 2', TTL_MS)).mine);
    t.false((await two.claim('upload 1', TTL_MS)).mine);
  });

  test(`${title}: the holder of a key cannot claim it again`, async (t) => {
    const {join} = await create(t);
    const coordination = join();
    await held(t, coordination);
    t.false((await coordination.claim(KEY, TTL_MS)).mine);
  });

  test(`${title}: a claim can be renewed, and its fence lets commits through, until it is released`, async (t) => {
    const {metadata, join} = await create(t);
    const claim = await held(t, join());
    t.true(await claim.renew());
    t.true(await metadata.commit([CHANGE], claim.fence));
    await claim.release();
    t.false(await claim.renew());
  });

  test(`${title}: releasing a claim twice does not affect the next holder`, async (t) => {
    const {join} = await create(t);
    const [one, two] = [join(), join()];
    const claim = await held(t, one);
    await claim.release();
    const next = await held(t, two);
    await claim.release();
    t.false(await claim.renew());
    t.true(await next.renew());
    t.false((await one.claim(KEY, TTL_MS)).mine);
  });
}

/** The claim of a key that is free. */
export async function held(t: ExecutionContext, coordination: Coordination): Promise<Claim> {
  const claim = await coordination.claim(KEY, TTL_MS);
  if (!claim.mine) return t.fail('somebody else holds it') as never;
  return claim;
}
