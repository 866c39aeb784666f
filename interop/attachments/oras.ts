import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {cleanEnvironment, expectSame} from '../clients/client.ts';
import {type Attachment, type KnownLimit, type Place, reference} from './attachment.ts';

export const API = ['--distribution-spec', 'v1.1-referrers-api'];
export const TAG = ['--distribution-spec', 'v1.1-referrers-tag'];
const SBOM = 'application/vnd.example.sbom+json';
const REPORT = 'application/vnd.example.report+json';

/** oras, which supports both ways to attach and to look. */
export const oras: readonly Attachment[] = [
  orasWith('oras, discover by API', [], API, [
    {look: 'directly', upstream: 'docker-registry', because: 'no: it has no API'},
  ]),
  orasWith('oras, discover by tag', [], TAG, [
    {look: 'directly', upstream: 'olareg', because: 'no: it has no tag'},
  ]),
  orasWith('oras, attach and discover by tag', TAG, TAG, []),
];

function orasWith(
  name: string,
  attaching: readonly string[],
  looking: readonly string[],
  limits: readonly KnownLimit[],
): Attachment {
  return {
    name,
    tools: ['oras'],
    limits,
    async attach(place) {
      const sbom = await attach(place, attaching, SBOM);
      const report = await attach(place, attaching, REPORT);
      return async (where) => {
        expectSame('the list', [sbom, report].sort(), await discover(where, looking));
        const filtered = await discover(where, [...looking, '--artifact-type', SBOM]);
        expectSame('the list of one artifact type', [sbom], filtered);
      };
    },
  };
}

/** Attaches a small file to the image of a place. @returns the digest of its manifest */
export async function attach(place: Place, how: readonly string[], artifactType: string): Promise<string> {
  const {scope, tools} = place;
  await writeFile(join(scope.folder, 'artifact.json'), JSON.stringify({artifactType}));
  const args = ['attach', '--plain-http', '--no-tty', ...how, '--artifact-type', artifactType];
  const output = ['--format', 'go-template', '--template', '{{.digest}}'];
  const command = [...args, ...output, reference(place), 'artifact.json:application/json'];
  const settings = {env: cleanEnvironment(scope), cwd: scope.folder};
  return (await scope.run(tools.path('oras'), command, settings)).trim();
}

/** The digests that `oras discover` lists, sorted. */
export async function discover(place: Place, how: readonly string[]): Promise<string[]> {
  const {scope, tools} = place;
  const args = ['discover', '--plain-http', '--format', 'json', '--depth', '1', ...how, reference(place)];
  const printed = await scope.run(tools.path('oras'), args, {env: cleanEnvironment(scope)});
  const {referrers}: {referrers: {digest: string}[]} = JSON.parse(printed);
  return referrers.map(({digest}) => digest).sort();
}
