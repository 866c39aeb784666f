import test from 'ava';
import {createAnswerTable, type PreparedAnswer} from '../../src/http/answer-table.ts';
import {createMovableClock} from '../support/backref.ts';

const answer: PreparedAnswer = {
  status: 200,
  fields: [],
  body: Buffer.alloc(1000),
  file: undefined,
  caller: 'anonymous',
  kind: 'manifest',
  action: 'pull',
  registry: 'docker.io',
  repository: undefined,
  digest: undefined,
  outcome: 'hit',
  cache: undefined,
  repeat: {
    from: Number.NEGATIVE_INFINITY,
    until: Number.POSITIVE_INFINITY,
    generations: [],
    served: undefined,
  },
  login: {method: undefined, source: undefined},
};

test('a table that is made smaller keeps the answers that were used last', (t) => {
  const table = createAnswerTable({slots: new Int32Array(1), maxBytes: 100_000, clock: createMovableClock()});
  const kept = () => ['a', 'b', 'c'].filter((key) => table.find(key));
  for (const key of ['a', 'b', 'c']) table.put(key, answer);
  t.deepEqual(kept(), ['a', 'b', 'c']);
  table.find('a');
  table.resize(10_000);
  t.deepEqual(kept(), ['a', 'c']);
  table.resize(0);
  t.deepEqual(kept(), []);
});
