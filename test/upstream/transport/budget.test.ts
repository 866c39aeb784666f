import test from 'ava';
import {waitFor} from '../../../src/upstream/transport/budget.ts';

test('a failure of work that nobody waits for any more does not go unhandled', async (t) => {
  const unhandledErrors: unknown[] = [];
  const record = (reason: unknown) => void unhandledErrors.push(reason);
  process.on('unhandledRejection', record);
  t.teardown(() => void process.off('unhandledRejection', record));
  const {promise, reject} = Promise.withResolvers<never>();
  const reason = new Error('over');
  t.is(await t.throwsAsync(waitFor(promise, AbortSignal.abort(reason))), reason);
  reject(new Error('too late'));
  await new Promise(setImmediate);
  t.deepEqual(unhandledErrors, []);
});
