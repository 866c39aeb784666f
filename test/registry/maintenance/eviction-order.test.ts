import test from 'ava';
import fc from 'fast-check';
import {
  createEvictionOrder,
  type EvictionFacts,
  probationLimitOf,
  retentionValue,
} from '../../../src/registry/maintenance/eviction-order.ts';

interface NamedRoot extends EvictionFacts {
  name: string;
}

const MB = 1_000_000;
const rootNamed = (name: string, facts: Partial<EvictionFacts> = {}): NamedRoot => ({
  name,
  uses: 2,
  age: 0,
  arrivedAt: 0,
  bytesShare: 10 * MB,
  requests: 10,
  isMember: false,
  ...facts,
});

/** The names in the order in which they are evicted. */
function evicted(roots: readonly NamedRoot[], probationLimit = 10 * MB): string[] {
  const order = createEvictionOrder(roots, {probationLimit});
  const names: string[] = [];
  for (let next = order.next(); next; next = order.next()) {
    names.push(next.root.name);
    order.remove(next.root);
  }
  return names;
}

test('roots that were used once go first, oldest first, while they hold more than a tenth of the cache', (t) => {
  t.is(probationLimitOf(1000), 100);
  const roots = [
    rootNamed('regular', {uses: 2, bytesShare: 500 * MB}),
    rootNamed('third', {uses: 1, arrivedAt: 3}),
    rootNamed('first', {uses: 1, arrivedAt: 1}),
    rootNamed('second', {uses: 0, arrivedAt: 2}),
  ];
  t.deepEqual(evicted(roots, 20 * MB), ['first', 'regular', 'second', 'third']);
  const order = createEvictionOrder(roots, {probationLimit: 20 * MB});
  t.like(order.next(), {root: roots[2], reason: 'probation'});
});

test('of the others, the one goes that saves least per byte', (t) => {
  t.deepEqual(
    evicted([
      rootNamed('used often', {uses: 20}),
      rootNamed('small', {bytesShare: MB}),
      rootNamed('large', {bytesShare: 100 * MB}),
      rootNamed('of many requests', {requests: 50}),
      rootNamed('plain'),
    ]),
    ['large', 'plain', 'of many requests', 'small', 'used often'],
  );
});

test('what was popular once is overtaken as the cache ages', (t) => {
  const popular = rootNamed('popular once', {uses: 50, age: 0});
  const value = retentionValue(popular);
  t.deepEqual(evicted([popular, rootNamed('used now', {age: value})]), ['popular once', 'used now']);
  t.deepEqual(evicted([popular, rootNamed('used now', {age: value / 2})]), ['used now', 'popular once']);
});

test('a member of another root goes after all others, and after its own change no more', (t) => {
  const member = rootNamed('member', {uses: 0, isMember: true, bytesShare: 900 * MB});
  const roots = [member, rootNamed('index', {uses: 1, arrivedAt: 1}), rootNamed('regular', {uses: 1000})];
  t.deepEqual(evicted(roots), ['regular', 'index', 'member']);
  t.true(Number.isFinite(createEvictionOrder([member], {probationLimit: 0}).next()?.value));
  const order = createEvictionOrder<NamedRoot>(roots, {probationLimit: 10 * MB});
  order.update(Object.assign(member, {isMember: false}));
  t.is(order.next()?.root, member);
});

test('a root that stands for no bytes can be valued and evicted', (t) => {
  const nothing = rootNamed('nothing', {bytesShare: 0, requests: 1});
  t.true(Number.isFinite(retentionValue(nothing)));
  t.deepEqual(evicted([nothing, rootNamed('large', {bytesShare: 100 * MB})]), ['large', 'nothing']);
});

test('the order agrees with a naive one, whatever changes', (t) => {
  const facts = fc.record({
    uses: fc.nat(4),
    age: fc.nat(3),
    arrivedAt: fc.nat(100),
    bytesShare: fc.nat(20),
    requests: fc.integer({min: 1, max: 5}),
    isMember: fc.boolean(),
  });
  const step = fc.oneof(
    fc.record({update: fc.nat(9), facts}),
    fc.record({remove: fc.nat(9)}),
    fc.constant({evict: true}),
  );
  const LIMIT = 25;
  fc.assert(
    fc.property(fc.array(step, {maxLength: 40}), (steps) => {
      const roots = new Map<number, NamedRoot>();
      const order = createEvictionOrder<NamedRoot>([], {probationLimit: LIMIT});
      const known = Array.from({length: 10}, (_, index) => rootNamed(`${index}`));
      for (const it of steps) {
        if ('update' in it) {
          const root = Object.assign(known[it.update] as NamedRoot, it.facts);
          roots.set(it.update, root);
          order.update(root);
        } else if ('remove' in it) {
          roots.delete(it.remove);
          order.remove(known[it.remove] as NamedRoot);
        }
        const all = [...roots.values()];
        const young = all.filter(({uses, isMember}) => uses < 2 && !isMember);
        const regular = all.filter((root) => !young.includes(root));
        const bytes = young.reduce((sum, {bytesShare}) => sum + bytesShare, 0);
        const next = order.next();
        if (!next) return all.length === 0;
        if (young.length > 0 && (bytes > LIMIT || regular.every(({isMember}) => isMember))) {
          const oldest = Math.min(...young.map(({arrivedAt}) => arrivedAt));
          if (next.reason !== 'probation' || next.root.arrivedAt !== oldest) return false;
        } else {
          const valueIn = (root: NamedRoot) =>
            root.isMember ? Number.POSITIVE_INFINITY : retentionValue(root);
          const least = Math.min(...regular.map(valueIn));
          if (next.reason !== 'value' || valueIn(next.root) !== least) return false;
        }
        if ('evict' in it) {
          roots.delete(Number(next.root.name));
          order.remove(next.root);
        }
      }
      return true;
    }),
    {numRuns: 300},
  );
  t.pass();
});
