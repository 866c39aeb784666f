import {parseCallerGlob} from '../caller-glob.ts';
import type {PlacedFault} from './fault.ts';
import {formatPath, type Path, type Tree, valueAt} from './tree.ts';
import {mapping, scalar} from './values.ts';

const pattern = scalar(
  'must be a pattern in which * stands for any characters but "/" and ** for any at all, e.g. O=Example,CN=node-* as subject, or spiffe://example/** as san',
  (value) => (typeof value === 'string' && parseCallerGlob(value) ? value : undefined),
);

const userName = scalar('must be the name of a user, without spaces and colons', (value) =>
  typeof value === 'string' && /^[^\s:]{1,128}$/.test(value) ? value : undefined,
);

/** Whom client certificates belong to. */
export const certificateSettings = mapping({
  subject: pattern.optional(),
  san: pattern.optional(),
  user: userName,
});

/** Finds settings that are about no certificate, or about two things. */
export function certificateFaults(tree: Tree): PlacedFault[] {
  const at: Path = ['access', 'certificates'];
  const certificates = valueAt(tree, at);
  if (!Array.isArray(certificates)) return [];
  return certificates.flatMap((certificate, index) => {
    const isDecided =
      (valueAt(certificate, ['subject']) === undefined) !== (valueAt(certificate, ['san']) === undefined);
    const here = [...at, index];
    return isDecided
      ? []
      : [
          {
            path: formatPath(here),
            at: here,
            problem:
              'must have either subject or san: a pattern for the subject, or for one of the alternative names',
          },
        ];
  });
}
