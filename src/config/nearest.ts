import {distance} from 'fastest-levenshtein';

/** The known word that was probably meant: the closest one, if at most a third of it has to be edited. */
function nearest(written: string, known: readonly string[]): string | undefined {
  const text = written.toLowerCase();
  const [best] = known
    .map((word) => ({word, edits: distance(text, word.toLowerCase())}))
    .filter(({word, edits}) => edits <= Math.max(1, Math.floor(word.length / 3)))
    .sort((a, b) => a.edits - b.edits);
  return best?.word;
}

/** ` (did you mean "ttl"?)`, or nothing. */
export function didYouMean(written: string, known: readonly string[]): string {
  const word = nearest(written, known);
  return word === undefined ? '' : ` (did you mean "${word}"?)`;
}
