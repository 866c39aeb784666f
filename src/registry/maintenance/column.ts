const INITIAL_LENGTH = 1024;

type Values = Int32Array | Float64Array;

/** One number for each of many things, in a typed array that grows. */
export class Column {
  readonly #type: new (
    length: number,
  ) => Values;
  #values: Values;
  #length = 0;

  /** @param type `Int32Array` for numbers of things and counts, `Float64Array` for bytes and times */
  constructor(type: new (length: number) => Values) {
    this.#type = type;
    this.#values = new type(INITIAL_LENGTH);
  }

  get length(): number {
    return this.#length;
  }

  /** All numbers, with zeros behind the end; valid until the column grows. */
  get values(): Values {
    return this.#values;
  }

  /** @returns 0 behind the end */
  at(index: number): number {
    return this.#values[index] ?? 0;
  }

  push(value: number): void {
    this.set(this.#length, value);
  }

  /** Everything between the old end and the index becomes 0. */
  set(index: number, value: number): void {
    if (index >= this.#values.length) {
      const grown = new this.#type(Math.max(index + 1, 2 * this.#values.length));
      grown.set(this.#values);
      this.#values = grown;
    }
    this.#values[index] = value;
    if (index >= this.#length) this.#length = index + 1;
  }

  add(index: number, value: number): void {
    this.set(index, this.at(index) + value);
  }

  /** A view of some of the numbers; it is valid until the column grows. */
  slice(start: number, length: number): Values {
    return this.#values.subarray(start, start + length);
  }
}

/** For each of many things the list of its neighbours, in the order in which they were added. */
export class Adjacency {
  readonly #first = new Column(Int32Array);
  readonly #last = new Column(Int32Array);
  readonly #target = new Column(Int32Array);
  readonly #next = new Column(Int32Array);

  /** Numbers inside count from 1, so that 0 is the end of a list. */
  add(from: number, to: number): void {
    this.#target.push(to);
    this.#next.push(0);
    const entry = this.#target.length;
    const last = this.#last.at(from);
    if (last === 0) this.#first.set(from, entry);
    else this.#next.set(last - 1, entry);
    this.#last.set(from, entry);
  }

  /** The position of the first neighbour, to be passed to `target` and `next`; 0 where there is none. */
  first(from: number): number {
    return this.#first.at(from);
  }

  next(position: number): number {
    return this.#next.at(position - 1);
  }

  target(position: number): number {
    return this.#target.at(position - 1);
  }
}
