import test from 'ava';
import type {Demand} from '../../../src/upstream/port.ts';
import {createLimit, type Slot, TooManyUnwanted} from '../../../src/upstream/transport/limit.ts';

const never = new AbortController().signal;

/** The demand for a download, set by a test. */
function createDemand(wanted: boolean) {
  const listeners = new Set<() => void>();
  const demand = {
    wanted,
    stopping: undefined,
    watch(listener: () => void) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    become(next: boolean) {
      demand.wanted = next;
      for (const listener of [...listeners]) listener();
    },
  };
  return demand satisfies Demand;
}

/** Acquires a slot of the limit; `served` says whether it has it. */
function take(limit: ReturnType<typeof createLimit>, demand?: Demand) {
  const taken: {slot: Slot | undefined; error: unknown} = {slot: undefined, error: undefined};
  limit.acquire(never, demand).then(
    (slot) => {
      taken.slot = slot;
    },
    (error: unknown) => {
      taken.error = error;
    },
  );
  return taken;
}

const settled = () => new Promise(setImmediate);

/** A download that has a slot and releases it when it is interrupted. */
async function acquireFor(limit: ReturnType<typeof createLimit>, demand: Demand) {
  const slot = await limit.acquire(never, demand);
  const state = {interruptions: 0, slot};
  slot.interruptible(() => {
    state.interruptions += 1;
    slot.release();
  });
  return state;
}

test('slots are given in the order of the requests', async (t) => {
  const limit = createLimit(1);
  const first = await limit.acquire(never);
  const [second, third] = [take(limit), take(limit)];
  first.release();
  first.release();
  await settled();
  t.truthy(second.slot);
  t.is(third.slot, undefined);
  second.slot?.release();
  await settled();
  t.truthy(third.slot);
});

test('wanted downloads go before unwanted ones, whatever the order of their requests', async (t) => {
  const limit = createLimit(1);
  const held = await limit.acquire(never);
  const unwanted = take(limit, createDemand(false));
  const wanted = take(limit, createDemand(true));
  held.release();
  await settled();
  t.truthy(wanted.slot);
  t.is(unwanted.slot, undefined);
  wanted.slot?.release();
  await settled();
  t.truthy(unwanted.slot);
});

test('one unwanted download is interrupted for each wanted one, and no more', async (t) => {
  const limit = createLimit(2);
  const held = [await acquireFor(limit, createDemand(false)), await acquireFor(limit, createDemand(false))];
  const wanted = take(limit, createDemand(true));
  await settled();
  t.truthy(wanted.slot);
  t.deepEqual(
    held.map(({interruptions}) => interruptions),
    [1, 0],
  );
});

test('a download that is slow to release its slot is not interrupted again, and no other one in its place', async (t) => {
  const limit = createLimit(2);
  let asked = 0;
  const slots = [
    await limit.acquire(never, createDemand(false)),
    await limit.acquire(never, createDemand(false)),
  ];
  for (const slot of slots) slot.interruptible(() => void asked++);
  const wanted = take(limit, createDemand(true));
  const other = createDemand(false);
  take(limit, other);
  await settled();
  t.is(asked, 1);
  other.become(true);
  t.is(asked, 2);
  slots[0]?.release();
  await settled();
  t.truthy(wanted.slot);
});

test('a download is not interrupted for an unwanted one, nor while somebody wants it', async (t) => {
  const limit = createLimit(1);
  const demand = createDemand(false);
  const held = await acquireFor(limit, demand);
  const waiting = createDemand(false);
  const taken = take(limit, waiting);
  await settled();
  t.is(held.interruptions, 0);
  demand.become(true);
  waiting.become(true);
  await settled();
  t.is(held.interruptions, 0);
  demand.become(false);
  await settled();
  t.is(held.interruptions, 1);
  t.truthy(taken.slot);
});

test('a download that is still waiting for its response releases its slot as soon as it can', async (t) => {
  const limit = createLimit(1);
  const slot = await limit.acquire(never, createDemand(false));
  const wanted = take(limit);
  await settled();
  t.is(wanted.slot, undefined);
  slot.interruptible(slot.release);
  await settled();
  t.truthy(wanted.slot);
});

test('at most as many unwanted downloads wait as there are slots; the latest are refused', async (t) => {
  const limit = createLimit(2);
  const held = [await limit.acquire(never), await limit.acquire(never)];
  const unwanted = [1, 2, 3].map(() => take(limit, createDemand(false)));
  const leaving = createDemand(true);
  const late = take(limit, leaving);
  await settled();
  t.deepEqual(
    unwanted.map(({error}) => error instanceof TooManyUnwanted),
    [false, false, true],
  );
  t.is(late.error, undefined);
  leaving.become(false);
  await settled();
  t.true(late.error instanceof TooManyUnwanted);
  for (const slot of held) slot.release();
  await settled();
  t.true(unwanted.slice(0, 2).every(({slot}) => slot !== undefined));
});

test('a waiter that gives up does not take a slot', async (t) => {
  const limit = createLimit(1);
  const held = await limit.acquire(never);
  const giveUp = new AbortController();
  const first = limit.acquire(giveUp.signal);
  const second = take(limit);
  giveUp.abort('late');
  t.is(await first.catch((reason: unknown) => reason), 'late');
  await t.throwsAsync(limit.acquire(AbortSignal.abort()));
  held.release();
  await settled();
  t.truthy(second.slot);
});
