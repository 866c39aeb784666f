import {installPackages} from './debian.ts';
import {findExecutable} from './executable.ts';
import {goFolder, installGo} from './go.ts';
import type {Scope} from './scope.ts';

/** Commands that Debian packages, with the package of each. */
const DEBIAN = {
  'docker-registry': 'docker-registry',
  skopeo: 'skopeo',
  podman: 'podman',
  buildah: 'buildah',
  containerd: 'containerd',
  ctr: 'containerd',
  dockerd: 'docker.io',
  docker: 'docker.io',
  nginx: 'nginx-light',
  wrk: 'wrk',
  openssl: 'openssl',
} as const;

/** Commands that are built with Go, each at the version that this project is tested with. */
const GO = {
  crane: {version: 'v0.22.1', module: 'github.com/google/go-containerregistry', package: 'cmd/crane'},
  oras: {version: 'v1.3.6', module: 'oras.land/oras', package: 'cmd/oras'},
  regctl: {version: 'v0.11.7', module: 'github.com/regclient/regclient', package: 'cmd/regctl'},
  registry: {version: 'v3.1.2', module: 'github.com/distribution/distribution/v3', package: 'cmd/registry'},
  cosign: {version: 'v3.1.3', module: 'github.com/sigstore/cosign/v3', package: 'cmd/cosign'},
  notation: {version: 'v1.3.2', module: 'github.com/notaryproject/notation', package: 'cmd/notation'},
  caddy: {version: 'v2.11.9', module: 'github.com/caddyserver/caddy/v2', package: 'cmd/caddy'},
  olareg: {version: 'v0.2.2', module: 'github.com/olareg/olareg', package: 'cmd/olareg'},
  // The official suite of the distribution-spec, which has no releases.
  conformance: {
    version: 'v0.0.0-20260831232431-97274622c111',
    module: 'github.com/opencontainers/distribution-spec/conformance',
    package: '.',
  },
} as const;

type DebianTool = keyof typeof DEBIAN;
type GoTool = keyof typeof GO;
export type Tool = DebianTool | GoTool;

/** The tools of a run. */
export interface Toolbox {
  /** @throws Error that says what is missing and why, for a tool that could not be installed. */
  path(tool: Tool): string;
  /** The version without a `v`. */
  version(tool: Tool): string;
  /** The reason for each missing tool; empty when all are available. */
  readonly missing: ReadonlyMap<Tool, string>;
}

const isGoTool = (tool: Tool): tool is GoTool => Object.hasOwn(GO, tool);

/**
 * Finds every tool and installs missing ones: Debian's with apt-get (as root), Go's into a folder of
 * the user's cache that is keyed by version. A tool that cannot be installed is listed in `missing`.
 * @param say reports what is being installed, because that takes minutes.
 */
export async function findTools(
  scope: Scope,
  wanted: readonly Tool[],
  say: (line: string) => void,
): Promise<Toolbox> {
  const found = new Map<Tool, {path: string; version: string}>();
  const missing = new Map<Tool, string>();
  const note = async (tool: Tool, install: () => Promise<void>) => {
    try {
      if (!(await locate(tool))) await install();
      const path = await locate(tool);
      if (!path) throw new Error('it was installed, but is still not in the path');
      found.set(tool, {path, version: await versionOf(scope, tool, path)});
    } catch (error) {
      missing.set(tool, error instanceof Error ? error.message : String(error));
    }
  };

  const debian = wanted.filter((tool): tool is DebianTool => !isGoTool(tool));
  const absent: DebianTool[] = [];
  for (const tool of debian) if (!(await locate(tool))) absent.push(tool);
  const packages = [...new Set(absent.map((tool) => DEBIAN[tool]))];
  let installed: Promise<void> | undefined;
  const installOnce = () => (installed ??= installPackages(scope, packages, say));
  for (const tool of debian) await note(tool, installOnce);
  for (const tool of wanted.filter(isGoTool))
    await note(tool, () => installGo(scope, {name: tool, ...GO[tool]}, say));

  const get = (tool: Tool) => {
    const entry = found.get(tool);
    if (!entry) throw new Error(`${tool} is missing: ${missing.get(tool) ?? 'it was not requested'}`);
    return entry;
  };
  return {missing, path: (tool) => get(tool).path, version: (tool) => get(tool).version};
}

/** Where Debian's packages put commands. */
const DEBIAN_FOLDERS = ['/usr/bin', '/usr/sbin'];

/** The executable of a tool, rather Debian's than another one; undefined when it is not installed. */
async function locate(tool: Tool): Promise<string | undefined> {
  if (isGoTool(tool)) return findExecutable(tool, [goFolder({name: tool, ...GO[tool]})]);
  return (await findExecutable(tool, DEBIAN_FOLDERS)) ?? findExecutable(tool);
}

async function versionOf(scope: Scope, tool: Tool, path: string): Promise<string> {
  if (isGoTool(tool)) return GO[tool].version.slice(1);
  // nginx prints its version to standard error, and wrk exits with 1 after it.
  const command = ['-c', '"$0" "$1" 2>&1 || true', path, tool === 'nginx' ? '-v' : '--version'];
  const printed = await scope.run('sh', command);
  return /\d+\.\d+(\.\d+)?/.exec(printed)?.[0] ?? '';
}
