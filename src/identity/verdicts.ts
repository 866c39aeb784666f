import {hash} from 'node:crypto';
import {createLru} from '../lru.ts';

/** What was found out about tokens. They are remembered by their hashes: nobody can read a token from this memory. */
export interface Verdicts<T> {
  get(token: string): T | undefined;
  set(token: string, verdict: T): void;
  delete(token: string): void;
}

/** Characters of the tokens of all verdicts: what is found in a token takes as much memory as the token, about. */
const MAX_CHARACTERS = 20_000_000;
/** A verdict takes memory beside what is found. */
const OWN_CHARACTERS = 500;

/** The least recently used are forgotten first. */
export function createVerdicts<T>(): Verdicts<T> {
  const entries = createLru<string, {verdict: T; characters: number}>(MAX_CHARACTERS, {
    sizeOf: ({characters}) => characters,
  });
  const keyOf = (token: string) => hash('sha256', token, 'base64');
  return {
    get: (token) => entries.get(keyOf(token))?.verdict,
    set(token, verdict) {
      entries.set(keyOf(token), {verdict, characters: token.length + OWN_CHARACTERS});
    },
    delete: (token) => void entries.delete(keyOf(token)),
  };
}
