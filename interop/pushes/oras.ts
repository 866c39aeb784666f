import {mkdir, readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {noise, sha256} from '../../rig/image.ts';
import {API, attach, discover, TAG} from '../attachments/oras.ts';
import {cleanEnvironment, expectSame} from '../clients/client.ts';
import {oneImage, type PushedContent, type PushTarget, pushedTag, type ToolPush} from './push.ts';

const FILE = {name: 'artifact.bin', bytes: noise('oras', 300_000)};

/** oras, which pushes files as an artifact, and attaches in both ways. */
export const oras: readonly ToolPush[] = [
  {
    name: 'oras, push',
    tools: ['oras'],
    overlay: 'allow',
    async push(target) {
      const {scope, tools} = target;
      await writeFile(join(scope.folder, FILE.name), FILE.bytes);
      const args = ['push', '--plain-http', '--no-tty', '--artifact-type', 'application/vnd.example.files'];
      const output = ['--format', 'go-template', '--template', '{{.digest}}'];
      const command = [...args, ...output, pushedTag(target), `${FILE.name}:application/octet-stream`];
      const settings = {env: cleanEnvironment(scope), cwd: scope.folder};
      const digest = (await scope.run(tools.path('oras'), command, settings)).trim();
      return oneImage(target, digest, async (where) => {
        const folder = join(where.scope.folder, 'pulled');
        await mkdir(folder);
        const pull = ['pull', '--plain-http', '--no-tty', '--output', folder, pushedTag(where)];
        await where.scope.run(tools.path('oras'), pull, {env: cleanEnvironment(where.scope)});
        expectSame('the file', [sha256(FILE.bytes)], [sha256(await readFile(join(folder, FILE.name)))]);
      });
    },
  },
  attaching('oras, attach by API', API),
  attaching('oras, attach by tag', TAG),
];

/** Looks through backref in the way that it attached, and directly in the way that the upstream supports. */
function attaching(name: string, how: readonly string[]): ToolPush {
  return {
    name,
    tools: ['oras'],
    overlay: 'deny',
    async push(target: PushTarget): Promise<PushedContent> {
      const attached = [
        await attach(target, how, 'application/vnd.example.sbom+json'),
        await attach(target, how, 'application/vnd.example.report+json'),
      ].sort();
      return {
        manifests: [],
        attached: {subject: target.image.index.digest, count: attached.length},
        find: async (where) => expectSame('the list', attached, await discover(where, how)),
        findDirectly: async (where) => expectSame('the list', attached, await discover(where, [])),
      };
    },
  };
}
