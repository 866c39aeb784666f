interface Entry<Item> {
  item: Item;
  key: number;
}

/** Items in the order of their keys, which may change: the lowest is found at once, a change takes logarithmic time. */
export class KeyedHeap<Item> {
  readonly #entries: Entry<Item>[] = [];
  readonly #places = new Map<Item, number>();

  get size(): number {
    return this.#entries.length;
  }

  has(item: Item): boolean {
    return this.#places.has(item);
  }

  /** The item with the lowest key. */
  lowest(): Readonly<Entry<Item>> | undefined {
    return this.#entries[0];
  }

  /** Adds the item, or gives it another key. */
  set(item: Item, key: number): void {
    const place = this.#places.get(item) ?? this.#entries.length;
    this.#put({item, key}, place);
    this.#settle(place);
  }

  /** @returns whether it was here */
  delete(item: Item): boolean {
    const place = this.#places.get(item);
    if (place === undefined) return false;
    this.#places.delete(item);
    const last = this.#entries.pop();
    if (!last || last.item === item) return true;
    this.#put(last, place);
    this.#settle(place);
    return true;
  }

  #settle(place: number): void {
    this.#sink(this.#rise(place));
  }

  #rise(from: number): number {
    let place = from;
    while (place > 0) {
      const above = (place - 1) >> 1;
      if (!this.#isLower(place, above)) break;
      this.#swap(place, above);
      place = above;
    }
    return place;
  }

  #sink(from: number): void {
    let place = from;
    for (;;) {
      const [left, right] = [2 * place + 1, 2 * place + 2];
      const lower = this.#isLower(right, left) ? right : left;
      if (!this.#isLower(lower, place)) return;
      this.#swap(place, lower);
      place = lower;
    }
  }

  /** False where there is nothing at `one`. */
  #isLower(one: number, other: number): boolean {
    const [a, b] = [this.#entries[one], this.#entries[other]];
    return a !== undefined && (b === undefined || a.key < b.key);
  }

  #swap(one: number, other: number): void {
    const [a, b] = [this.#entries[one], this.#entries[other]];
    if (!a || !b) return;
    this.#put(a, other);
    this.#put(b, one);
  }

  #put(entry: Entry<Item>, place: number): void {
    this.#entries[place] = entry;
    this.#places.set(entry.item, place);
  }
}
