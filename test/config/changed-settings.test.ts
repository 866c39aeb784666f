import test from 'ava';
import {changedSettings} from '../../src/config.ts';
import {loadGiven} from '../support/settings.ts';

test('only settings that differ are named, by their paths', async (t) => {
  const before = await loadGiven({yaml: 'garbage: {grace: 1h}'});
  const after = await loadGiven({yaml: 'listen: {port: 1}\nstorage: {path: /srv}\ngarbage: {grace: 60m}'});
  t.deepEqual(changedSettings(before, after), [
    'listen',
    'storage.path',
    'storage.blobs.path',
    'storage.metadata.path',
  ]);
  t.deepEqual(changedSettings(before, await loadGiven({yaml: 'garbage: {grace: 1h}'})), []);
});

test('a list is one setting, and so is a mapping that only one side has', (t) => {
  t.deepEqual(changedSettings({a: {b: [1]}, c: 1}, {a: {b: [1, 2]}, d: {e: 1}}), ['a.b', 'c', 'd']);
});
