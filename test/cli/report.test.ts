import test from 'ava';
import {createProgressDisplay} from '../../src/cli/report.ts';

function screen(settings: {isTTY?: boolean; columns?: number}) {
  const written: string[] = [];
  return {written, ...settings, write: (text: string) => written.push(text)};
}

test('on a terminal a bar is redrawn in place, and cleared at the end', (t) => {
  const terminal = screen({isTTY: true, columns: 80});
  const progress = createProgressDisplay(terminal);
  progress.show(0, 'nothing');
  progress.show(0.5, 'half');
  progress.show(1, 'all');
  progress.end();
  progress.end();
  t.deepEqual(terminal.written, [
    '\r[............]   0 %  nothing\x1b[K',
    '\r[######......]  50 %  half\x1b[K',
    '\r[############] 100 %  all\x1b[K',
    '\r\x1b[K',
  ]);
});

test('on a terminal parts have bars of their own above the whole, which come and go', (t) => {
  const terminal = screen({isTTY: true, columns: 80});
  const progress = createProgressDisplay(terminal);
  progress.show(0.25, 'all', [
    {done: 0.5, text: 'a\x1b[2J'},
    {done: 0, text: 'b'},
  ]);
  progress.show(0.5, 'all', [{done: 0, text: 'b'}]);
  progress.end();
  t.deepEqual(terminal.written, [
    '\r[######......]  50 %  a?[2J\x1b[K\n[............]   0 %  b\x1b[K\n[###.........]  25 %  all\x1b[K',
    '\x1b[2A\r[............]   0 %  b\x1b[K\n[######......]  50 %  all\x1b[K\x1b[J',
    '\x1b[1A\r\x1b[J',
  ]);
});

test('a bar never wraps', (t) => {
  const terminal = screen({isTTY: true, columns: 20});
  createProgressDisplay(terminal).show(0.5, 'a long text');
  t.is(terminal.written[0], '\r[######......]  50 \x1b[K');
});

test('a bar with the text of a large store fits 80 columns, even when the width is unknown', (t) => {
  for (const columns of [80, 0]) {
    const terminal = screen({isTTY: true, columns});
    const text = '123,456/123,456 tags, 12,345 referrers, 1,234,567 requests';
    createProgressDisplay(terminal).show(0.99, text);
    const line = `[############]  99 %  ${text}`;
    t.true(line.length < 81, String(line.length));
    t.is(terminal.written[0], `\r${line.slice(0, 79)}\x1b[K`);
  }
});

test('without a terminal there is a line for every tenth', (t) => {
  const file = screen({});
  const progress = createProgressDisplay(file);
  for (let step = 0; step <= 1000; step++) progress.show(step / 1000, `step ${step}`);
  progress.end();
  t.is(file.written.length, 10);
  t.is(file.written[0], ' 10 %  step 100\n');
  t.is(file.written.at(-1), '100 %  step 1000\n');
});
