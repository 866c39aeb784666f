import type {z} from 'zod';
import type {PlacedFault} from './fault.ts';
import {didYouMean} from './nearest.ts';
import {knownKeys} from './schema.ts';
import {formatPath} from './tree.ts';

/** Turns what zod says of the settings' shape into faults, one for each unknown key. */
export const shapeFaults = (error: z.ZodError): PlacedFault[] => error.issues.flatMap(faultsOf);

function faultsOf(issue: z.core.$ZodIssue): PlacedFault[] {
  const at = issue.path.map((key) => (typeof key === 'number' ? key : String(key)));
  if (issue.code !== 'unrecognized_keys') return [{path: formatPath(at), at, problem: issue.message}];
  const known = knownKeys(at);
  return issue.keys.map((key) => ({
    path: formatPath([...at, key]),
    at: [...at, key],
    hideValue: true,
    problem: `is not known${didYouMean(key, known)}: allowed here are ${known.join(', ')}`,
  }));
}
