import test from 'ava';
import {createSpoiling} from '../../chaos/spoiling.ts';

const REQUESTS = Array.from({length: 1000}, (_, index) => `GET /v2/app/blobs/${index % 400}`);

test('the same seed spoils the same answers, in whatever order the requests come', (t) => {
  const plan = {share: 0.3, kinds: ['wrong bytes', 'status 503'], seed: '7'} as const;
  const [first, second] = [createSpoiling(plan), createSpoiling(plan)];
  const forwards = REQUESTS.slice(0, 400).map((request) => first.next(request));
  const backwards = REQUESTS.slice(0, 400)
    .toReversed()
    .map((request) => second.next(request));
  t.deepEqual(forwards, backwards.toReversed());
});

test('about as many answers are spoiled as the share says, each time a request comes anew', (t) => {
  const spoiling = createSpoiling({share: 0.3, kinds: ['silence'], seed: '7'});
  const spoiled = REQUESTS.filter((request) => spoiling.next(request) !== undefined).length;
  t.true(spoiled > 250 && spoiled < 350, String(spoiled));
});
