import test from 'ava';
import {digestOf} from '../../../src/oci/digest.ts';
import {parseName, parseReference} from '../../../src/oci/name.ts';
import {createProtection} from '../../../src/registry/maintenance/protection.ts';

const digest = digestOf(Buffer.from('an image'));
const inHub = (name: string) => ({registry: 'docker.io', name: parseName(name)});

test('an image is pinned by a pattern of the configuration, or by a stored pin of one of its names', (t) => {
  const protectionWith = createProtection({pins: ['docker.io/library/base:*'], keep: []});
  const stored = [
    {...inHub('library/app'), reference: parseReference('1'), at: 0},
    {...inHub('library/app'), reference: digest, at: 0},
  ];
  const isPinned = (name: string, ...references: string[]) =>
    protectionWith(stored).isPinned(inHub(name), references.map(parseReference));
  t.true(isPinned('library/base', 'latest'));
  t.false(isPinned('library/base', digest), 'it has no tag');
  t.true(isPinned('library/app', '2', '1'));
  t.true(isPinned('library/app', digest));
  t.false(isPinned('library/app', '2'));
  t.false(isPinned('library/other', '1', digest));
});

test('of the patterns that match a repository, the one that keeps most images counts', (t) => {
  const keep = [
    {match: 'docker.io/**', newest: 1},
    {match: 'docker.io/library/*', newest: 3},
  ];
  const {newestKept} = createProtection({pins: [], keep})([]);
  t.is(newestKept(inHub('library/app')), 3);
  t.is(newestKept(inHub('team/app')), 1);
  t.is(newestKept({...inHub('team/app'), registry: 'ghcr.io'}), 0);
});
