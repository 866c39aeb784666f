import test from 'ava';
import {matching, RUNS} from '../../conformance/runs.ts';

const names = (text: string) => matching(text).map(({name}) => name);

test('without a name, all runs are selected', (t) => {
  t.deepEqual(matching(''), [...RUNS]);
});

test('no two runs have the same name, and a run precedes those that are compared with it', (t) => {
  const seen = new Set<string>();
  for (const {name, aim} of RUNS) {
    t.false(seen.has(name), name);
    if (aim.kind === 'right' && aim.beside) t.true(seen.has(aim.beside), name);
    seen.add(name);
  }
});

test('a full name selects one run, a part of a name all runs that contain it', (t) => {
  t.deepEqual(names('hosted dev'), ['hosted dev']);
  t.deepEqual(names('Hosted'), ['hosted 1.1', 'hosted dev', 'hosted dev sparse']);
});

test('a run that is compared with another selects it too', (t) => {
  t.deepEqual(names('through dev'), ['docker-registry dev', 'through dev']);
});

test('an unknown name is reported, with the names that exist', (t) => {
  t.throws(() => matching('nope'), {message: /^no run is called "nope"; there are: hosted 1\.1; /});
});
