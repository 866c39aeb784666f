import test from 'ava';
import {OciError} from '../../src/oci/errors.ts';
import {imageNamed} from '../../src/registry/image-name.ts';
import {createRegistries} from '../../src/registry/registries.ts';
import {registryOver} from '../support/registry.ts';

const registries = createRegistries(
  [
    {...registryOver('docker.io', {}), library: true, aliases: ['index.docker.io']},
    {...registryOver('ghcr.io', {}), hosts: ['ghcr.mirror.example']},
    registryOver('localhost:5001', {}),
  ],
  'docker.io',
);
const DIGEST = `sha256:${'a'.repeat(64)}`;

const read = (text: string): string => {
  const {route, reference} = imageNamed(registries, text);
  return `${route.repository.registry} ${route.repository.name} ${reference}`;
};

const rows: [image: string, is: string][] = [
  ['alpine', 'docker.io library/alpine latest'],
  ['alpine:3', 'docker.io library/alpine 3'],
  ['org/app:1', 'docker.io org/app 1'],
  ['docker.io/library/alpine:3', 'docker.io library/alpine 3'],
  ['docker.io/alpine:3', 'docker.io library/alpine 3'],
  ['index.docker.io/library/alpine', 'docker.io library/alpine latest'],
  ['ghcr.io/org/app:1', 'ghcr.io org/app 1'],
  [`docker.io/library/alpine@${DIGEST}`, `docker.io library/alpine ${DIGEST}`],
  [`alpine:3@${DIGEST}`, `docker.io library/alpine ${DIGEST}`],
  ['localhost:5001/app', 'localhost:5001 app latest'],
  ['localhost:5001/app:1', 'localhost:5001 app 1'],
  ['ghcr.mirror.example/org/app:1', 'ghcr.io org/app 1'],
];

for (const [image, is] of rows)
  test(`${image.replace(DIGEST, 'sha256:…')} is read as clients read it`, (t) => {
    t.is(read(image), is);
  });

for (const image of ['', '@', `a@${DIGEST}@${DIGEST}`, 'quay.io/app:1', 'a:', 'a:b:c', 'A', 'a@sha256:1']) {
  test(`"${image.replaceAll(DIGEST, 'sha256:…')}" is refused`, (t) => {
    t.throws(() => imageNamed(registries, image), {instanceOf: OciError});
  });
}
