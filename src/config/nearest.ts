/** Edits (insert, delete, replace, one character each) that make one text of the other. */
function distance(left: string, right: string): number {
  let row = Array.from({length: right.length + 1}, (_, index) => index);
  for (const [i, a] of [...left].entries()) {
    const next = [i + 1];
    for (const [j, b] of [...right].entries()) {
      next.push(Math.min((next[j] ?? 0) + 1, (row[j + 1] ?? 0) + 1, (row[j] ?? 0) + (a === b ? 0 : 1)));
    }
    row = next;
  }
  return row[right.length] ?? 0;
}

/** The known word that was probably meant, if one is within a third of its length of what was written. */
function nearest(written: string, known: readonly string[]): string | undefined {
  const [best] = known
    .map((word) => ({word, edits: distance(written.toLowerCase(), word.toLowerCase())}))
    .filter(({word, edits}) => edits <= Math.max(1, Math.floor(word.length / 3)))
    .sort((a, b) => a.edits - b.edits);
  return best?.word;
}

/** ` (did you mean "ttl"?)`, or nothing. */
export function didYouMean(written: string, known: readonly string[]): string {
  const word = nearest(written, known);
  return word === undefined ? '' : ` (did you mean "${word}"?)`;
}
