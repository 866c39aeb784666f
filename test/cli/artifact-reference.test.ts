import test from 'ava';
import {parseArtifactReference} from '../../src/cli/artifact-reference.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;

const READ: Record<string, {target: string; reference: string}> = {
  'r.test/a:1': {target: 'docker://r.test/a', reference: '1'},
  'docker://r.test/a/b:v1.0': {target: 'docker://r.test/a/b', reference: 'v1.0'},
  'localhost/a:1': {target: 'docker://localhost/a', reference: '1'},
  '127.0.0.1:5000/a:1': {target: 'docker://127.0.0.1:5000/a', reference: '1'},
  [`127.0.0.1:5000/a@${DIGEST}`]: {target: 'docker://127.0.0.1:5000/a', reference: DIGEST},
  [`r.test/a:1@${DIGEST}`]: {target: 'docker://r.test/a', reference: DIGEST},
  'oci:folder:1': {target: 'oci:folder', reference: '1'},
  'oci:/a b/c@d:latest': {target: 'oci:/a b/c@d', reference: 'latest'},
  'oci:c:/d:1': {target: 'oci:c:/d', reference: '1'},
  [`oci:./x@${DIGEST}`]: {target: 'oci:./x', reference: DIGEST},
};

for (const [text, expected] of Object.entries(READ)) {
  test(`${text} names ${expected.target}`, (t) => {
    t.deepEqual(parseArtifactReference(text), expected);
  });
}

for (const text of [
  '',
  'a',
  'a:1',
  'team/app:1',
  'r.test/a',
  'r.test:5000/a',
  'r.test:5000',
  'r.test/a@sha256:0',
  'r.test/UPPER:1',
  'oci:x',
  `@${DIGEST}`,
]) {
  test(`"${text}" is refused with what may be written`, (t) => {
    t.regex(String(parseArtifactReference(text)), /write host\/name:tag/);
  });
}
