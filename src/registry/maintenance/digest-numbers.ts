import {randomInt} from 'node:crypto';
import {algorithmOf, type Digest, encodedOf} from '../../oci/digest.ts';
import {Column} from './column.ts';

/** No digest, no number. */
export const NONE = -1;

/** Gives every digest a number, from 0 on, so that a million of them fit into typed arrays. */
export interface DigestNumbers {
  readonly size: number;
  /** The digest's number; the next free one when it has none yet. */
  add(digest: Digest): number;
  /** The digest's number, or `NONE`. */
  find(digest: Digest): number;
  digestOf(number: number): Digest;
}

/** 32-bit words of a sha256 digest. */
const WORDS = 8;
const BYTES = WORDS * 4;
const INITIAL_SLOTS = 1024;

export const createDigestNumbers = (): DigestNumbers => new HashedDigests();

/**
 * An open hash table over the bytes of the digests: 40 bytes for each, where a `Map` of strings takes 170. Digests of other
 * algorithms are rare and stay strings.
 */
class HashedDigests implements DigestNumbers {
  readonly #words = new Column(Int32Array);
  readonly #others = new Map<Digest, number>();
  readonly #otherByNumber = new Map<number, Digest>();
  /** Random, so that nobody can choose digests that all fall into one place. */
  readonly #factors = Array.from({length: WORDS}, () => randomInt(2 ** 31) | 1);
  readonly #wanted = Buffer.alloc(BYTES);
  readonly #wantedWords = new Int32Array(this.#wanted.buffer, this.#wanted.byteOffset, WORDS);
  #slots = new Int32Array(INITIAL_SLOTS).fill(NONE);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  add(digest: Digest): number {
    const known = this.find(digest);
    if (known !== NONE) return known;
    if (2 * this.#size > this.#slots.length) this.#grow();
    const number = this.#size;
    this.#size += 1;
    if (algorithmOf(digest) === 'sha256') {
      for (const word of this.#wantedWords) this.#words.push(word);
      this.#place(number);
    } else {
      this.#others.set(digest, number);
      this.#otherByNumber.set(number, digest);
      for (let word = 0; word < WORDS; word++) this.#words.push(0);
    }
    return number;
  }

  find(digest: Digest): number {
    if (algorithmOf(digest) !== 'sha256') return this.#others.get(digest) ?? NONE;
    this.#wanted.write(encodedOf(digest), 'hex');
    let slot = this.#hash(this.#wantedWords, 0) & this.#mask;
    for (;;) {
      const number = this.#slots[slot] ?? NONE;
      if (number === NONE || this.#isWanted(number)) return number;
      slot = (slot + 1) & this.#mask;
    }
  }

  digestOf(number: number): Digest {
    const other = this.#otherByNumber.get(number);
    if (other) return other;
    const {buffer, byteOffset} = this.#words.slice(number * WORDS, WORDS);
    return `sha256:${Buffer.from(buffer, byteOffset, BYTES).toString('hex')}` as Digest;
  }

  get #mask(): number {
    return this.#slots.length - 1;
  }

  /** Puts the number of a digest that has none yet into a free place. */
  #place(number: number): void {
    const words = this.#words.values;
    let slot = this.#hash(words, number * WORDS) & this.#mask;
    while (this.#slots[slot] !== NONE) slot = (slot + 1) & this.#mask;
    this.#slots[slot] = number;
  }

  #grow(): void {
    this.#slots = new Int32Array(2 * this.#slots.length).fill(NONE);
    for (let number = 0; number < this.#size; number++) {
      if (!this.#otherByNumber.has(number)) this.#place(number);
    }
  }

  #hash(words: ArrayLike<number>, from: number): number {
    let hash = 0;
    for (let word = 0; word < WORDS; word++) {
      hash = (hash + Math.imul(words[from + word] ?? 0, this.#factors[word] ?? 1)) | 0;
    }
    return hash ^ (hash >>> 15);
  }

  #isWanted(number: number): boolean {
    const words = this.#words.values;
    const from = number * WORDS;
    for (let word = 0; word < WORDS; word++) {
      if (words[from + word] !== this.#wantedWords[word]) return false;
    }
    return true;
  }
}
