import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {cleanEnvironment, expectSame} from '../clients/client.ts';
import {type Attachment, type Place, reference} from './attachment.ts';

const SBOM = 'application/vnd.example.sbom+json';
const REPORT = 'application/vnd.example.report+json';

/** regctl, which uses the API if there is one, otherwise the tag. */
export const regctl: Attachment = {
  name: 'regctl, artifact put and list',
  tools: ['regctl'],
  limits: [],
  async attach(place) {
    const sbom = await put(place, SBOM);
    const report = await put(place, REPORT);
    return async (where) => {
      expectSame('the list', [sbom, report].sort(), await list(where, []));
      const filtered = await list(where, ['--filter-artifact-type', SBOM]);
      expectSame('the list of one artifact type', [sbom], filtered);
    };
  },
};

async function put(place: Place, artifactType: string): Promise<string> {
  const file = join(place.scope.folder, 'artifact.json');
  await writeFile(file, JSON.stringify({artifactType}));
  const args = ['--artifact-type', artifactType, '--file', file, '--file-media-type', 'application/json'];
  const output = ['--format', '{{.Manifest.GetDescriptor.Digest}}'];
  return (await run(place, ['artifact', 'put', '--subject', reference(place), ...args, ...output])).trim();
}

/** The digests that `regctl artifact list` prints, sorted. */
async function list(place: Place, filter: readonly string[]): Promise<string[]> {
  const output = ['--format', '{{range .Descriptors}}{{println .Digest}}{{end}}'];
  const printed = await run(place, ['artifact', 'list', ...filter, ...output, reference(place)]);
  return printed.split('\n').filter(Boolean).sort();
}

const run = ({scope, tools, host}: Place, args: readonly string[]): Promise<string> =>
  scope.run(tools.path('regctl'), ['--host', `reg=${host},tls=disabled`, ...args], {
    env: cleanEnvironment(scope),
  });
