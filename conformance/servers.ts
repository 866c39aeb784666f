import {join} from 'node:path';
import {SOURCES, serveRegistries} from '../rig/backref.ts';
import type {Scope, Started} from '../rig/scope.ts';
import type {Tool, Toolbox} from '../rig/tools.ts';
import {startRegistry, UPSTREAM_TOOLS, type UpstreamName} from '../rig/upstreams.ts';
import {preload, type ReadOnlyData} from './read-only.ts';

/** A server under test. */
export interface SuiteServer {
  tools: readonly Tool[];
  /** Its name in the table. */
  name(tools: Toolbox): string;
  start(scope: Scope, tools: Toolbox): Promise<RunningServer>;
}

export interface RunningServer {
  process: Started;
  /** `http://host:port` */
  url: string;
  /** The content of a server that does not accept pushes. */
  data?: ReadOnlyData;
}

/** Another registry, as in interop: with deletes, and olareg also with sparse manifests. */
export const peer = (name: UpstreamName): SuiteServer => ({
  tools: [UPSTREAM_TOOLS[name]],
  name: (tools) => withVersion(tools, name),
  start: (scope, tools) => startRegistry(scope, tools, name),
});

/** Pushed content is stored in backref. */
export const hosted = (label: string, settings: Record<string, unknown> = {}): SuiteServer => ({
  tools: [],
  name: () => label,
  start: (scope) => serve(scope, {push: 'local', ...settings}),
});

/** Pushed content is written through to a registry without the Referrers API. */
export const through = (label: string): SuiteServer => ({
  tools: ['docker-registry'],
  name: (tools) => `${label} ${withVersion(tools, 'docker-registry')}`,
  start: async (scope, tools) => {
    const {url} = await startRegistry(scope, tools, 'docker-registry');
    return serve(scope, {push: 'through', upstream: {url, insecure: true}});
  },
});

/** A mirror of a registry that has content and no Referrers API. */
export const mirror = (label: string): SuiteServer => ({
  tools: ['docker-registry'],
  name: (tools) => `${label} ${withVersion(tools, 'docker-registry')}`,
  start: async (scope, tools) => {
    const {url} = await startRegistry(scope, tools, 'docker-registry');
    const data = await preload(url);
    return {...(await serve(scope, {push: 'deny', upstream: {url, insecure: true}})), data};
  },
});

/** A missing tool has no version, and its server does not start. */
const withVersion = (tools: Toolbox, name: UpstreamName): string => {
  const tool = UPSTREAM_TOOLS[name];
  return tools.missing.has(tool) ? name : `${name} ${tools.version(tool)}`;
};

const serve = (scope: Scope, registry: Record<string, unknown>): Promise<RunningServer> =>
  serveRegistries(scope, {
    main: SOURCES,
    folder: join(scope.folder, 'data'),
    registries: {'registry.test': {default: true, ...registry}},
  });
