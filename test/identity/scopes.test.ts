import test from 'ava';
import {CATALOG, covers, formatScope, parseScope, scopeFor} from '../../src/identity/scopes.ts';

test('a scope is read as it is written', (t) => {
  for (const text of [
    'repository:app:pull',
    'repository:registry.local:5000/org/app:pull,push',
    'registry:catalog:*',
  ]) {
    const scope = parseScope(text);
    t.is(scope && formatScope(scope), text);
  }
  t.deepEqual(parseScope('repository(plugin):org/app:pull,pull'), {
    type: 'repository',
    name: 'org/app',
    actions: ['pull'],
  });
});

for (const text of ['', 'repository', 'repository:app', 'repository:a"b:pull', 'repository::pull', 'a b:c:d'])
  test(`"${text}" is not a scope`, (t) => {
    t.is(parseScope(text), undefined);
  });

const scopes = (...texts: string[]) => texts.flatMap((text) => parseScope(text) ?? []);

test('a token is for the repository and the actions that it names, and for nothing else', (t) => {
  const given = scopes('repository:a:pull', 'repository:b:pull', 'repository:b:push', 'repository:c:*');
  t.true(covers(given, scopeFor('a', 'pull')));
  t.false(covers(given, scopeFor('a', 'push')));
  t.false(covers(given, scopeFor('a', 'delete')));
  t.false(covers(given, scopeFor('a/b', 'pull')));
  t.true(covers(given, scopeFor('b', 'push')));
  t.true(covers(given, scopeFor('b', 'attach')));
  t.true(covers(given, scopeFor('c', 'delete')));
  t.false(covers(given, CATALOG));
  t.false(covers([], scopeFor('a', 'pull')));
});

test('a credential that is not a scoped token is for everything', (t) => {
  t.true(covers(undefined, scopeFor('a', 'delete')));
  t.true(covers(undefined, CATALOG));
});
