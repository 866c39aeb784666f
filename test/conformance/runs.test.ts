import test from 'ava';
import {matching, RUNS} from '../../conformance/runs.ts';

const names = (text: string) => matching(text).map(({name}) => name);

test('all runs are meant when none is named', (t) => {
  t.deepEqual(matching(''), [...RUNS]);
});

test('no two runs have the same name, and one that another is compared with stands before it', (t) => {
  const seen = new Set<string>();
  for (const {name, aim} of RUNS) {
    t.false(seen.has(name), name);
    if (aim.kind === 'right' && aim.beside) t.true(seen.has(aim.beside), name);
    seen.add(name);
  }
});

test('a whole name means this run alone, a part of one means all that have it', (t) => {
  t.deepEqual(names('hosted dev'), ['hosted dev']);
  t.deepEqual(names('Hosted'), ['hosted 1.1', 'hosted dev', 'hosted dev sparse']);
});

test('a run that is compared with another brings it along', (t) => {
  t.deepEqual(names('through dev'), ['docker-registry dev', 'through dev']);
});

test('a name that no run has is told, with those that there are', (t) => {
  t.throws(() => matching('nope'), {message: /^no run is called "nope"; there are: hosted 1\.1; /});
});
