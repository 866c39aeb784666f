import {EventEmitter, once} from 'node:events';
import {registerHooks} from 'node:module';
import test from 'ava';
import {startBackref} from './support/backref.ts';
import {createScriptedUpstream} from './support/scripted-upstream.ts';

test('got is loaded soon after the start, before anybody asks', async (t) => {
  const loading = new EventEmitter();
  const hooks = registerHooks({
    load(url, context, next) {
      if (url.endsWith('/node_modules/got/dist/source/index.js')) loading.emit('got');
      return next(url, context);
    },
  });
  t.teardown(() => hooks.deregister());
  const got = once(loading, 'got');
  const upstream = await createScriptedUpstream(t);
  await startBackref(t, {registries: [upstream]});

  await got;
  t.deepEqual(upstream.requests, []);
});
