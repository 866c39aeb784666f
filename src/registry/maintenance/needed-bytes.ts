import {Column} from './column.ts';

/** Whose bytes nobody gives back: content that was pushed here. */
export const KEEPER = 0;

/**
 * How many bytes each of many holders needs alone. Holders and contents are integers; the holder `KEEPER` is never
 * released. A content that several holders need is shared by them; when all but one are released, it is that one's own.
 */
export class NeededBytes {
  readonly #size = new Column(Float64Array);
  readonly #holders = new Column(Int32Array);
  /** All holders of a content, XORed: where there is only one, its number. */
  readonly #combined = new Column(Int32Array);
  readonly #unique = new Column(Float64Array);
  readonly #uniqueCount = new Column(Int32Array);

  /** What a content takes; 0 bytes where it is not stored. */
  sizeOf(content: number): number {
    return this.#size.at(content);
  }

  setSize(content: number, bytes: number): void {
    const change = bytes - this.#size.at(content);
    this.#size.set(content, bytes);
    if (this.#holders.at(content) === 1) this.#unique.add(this.#combined.at(content), change);
  }

  holdersOf(content: number): number {
    return this.#holders.at(content);
  }

  /** The bytes that would be free if this holder were released. */
  uniqueBytes(holder: number): number {
    return this.#unique.at(holder);
  }

  /** The contents that would be free if this holder were released. */
  uniqueCount(holder: number): number {
    return this.#uniqueCount.at(holder);
  }

  /** Each content's bytes, divided by its holders. */
  bytesShare(contents: Iterable<number>): number {
    let bytes = 0;
    for (const content of contents) bytes += this.sizeOf(content) / Math.max(1, this.holdersOf(content));
    return bytes;
  }

  /** @param contents each once */
  hold(holder: number, contents: Iterable<number>): void {
    for (const content of contents) {
      const before = this.#holders.at(content);
      if (before === 0) this.#own(content, holder, 1);
      if (before === 1) this.#own(content, this.#combined.at(content), -1);
      this.#holders.set(content, before + 1);
      this.#combined.set(content, this.#combined.at(content) ^ holder);
    }
  }

  /**
   * @param contents the ones that it holds
   * @returns the holders that need more alone than before, perhaps several times
   */
  release(holder: number, contents: Iterable<number>): number[] {
    const changed: number[] = [];
    for (const content of contents) {
      const left = this.#holders.at(content) - 1;
      const combined = this.#combined.at(content) ^ holder;
      this.#holders.set(content, left);
      this.#combined.set(content, combined);
      if (left === 0) this.#own(content, holder, -1);
      if (left !== 1) continue;
      this.#own(content, combined, 1);
      changed.push(combined);
    }
    return changed;
  }

  #own(content: number, holder: number, sign: 1 | -1): void {
    this.#unique.add(holder, sign * this.#size.at(content));
    this.#uniqueCount.add(holder, sign);
  }
}
