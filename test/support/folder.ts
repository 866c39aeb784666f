import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import type {Lifetime} from './shared.ts';

/** An empty folder that is removed when the test has ended. */
export async function createFolder(t: Lifetime, parent = tmpdir()): Promise<string> {
  const folder = await mkdtemp(join(parent, 'backref-'));
  // A program that has just been killed may still be writing.
  t.teardown(() => rm(folder, {recursive: true, force: true, maxRetries: 10}));
  return folder;
}
