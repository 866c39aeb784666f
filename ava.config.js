import {availableParallelism} from 'node:os';

export default {
  files: ['test/**/*.test.ts'],
  extensions: {ts: 'module'},
  // Tests wait for sockets, processes and timers about half of the time.
  concurrency: Math.min(2 * availableParallelism(), 16),
  // Of silence. While a longer `t.timeout` of a test lasts, AVA ignores it, and afterwards looks again only when
  // something happens: a test that hangs meanwhile would keep the run from ever ending.
  timeout: '5m',
};
