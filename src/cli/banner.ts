import {resolve} from 'node:path';
import type {Config, RegistryConfig} from '../config.ts';

export interface Running {
  version: string;
  config: Config;
  /** Where the configuration comes from. */
  source: string;
  /** Where the server listens. */
  address: {url: string; host: string; port: number};
}

/** What `serve` tells a person who has started it: where it listens, what it serves, where the cache lies, how to pull. */
export function banner({version, config, source, address}: Running): string {
  const {blobs, metadata} = config.storage;
  return `backref ${version} listens on ${address.url}

  configuration  ${source}
  cache          ${resolve(blobs.path)}, metadata in ${resolve(metadata.path)}

${table([['registry', 'upstream', 'reached as'], ...config.registries.map(row)])}

Pull through it:  ${example(config.registries, address)}
`;
}

function row({name, upstream, push, aliases, hosts, ...registry}: RegistryConfig): string[] {
  const ways = [
    ...(registry.default ? ['the default'] : []),
    [name, ...aliases].join(', '),
    ...(hosts.length > 0 ? [`host ${hosts.join(', ')}`] : []),
  ];
  const source = upstream?.url ?? 'hosted here';
  return [name, push === 'deny' ? source : `${source}, push: ${push}`, ways.join('; ')];
}

function table(rows: readonly string[][]): string {
  const widths = [0, 1].map((column) => Math.max(...rows.map((cells) => cells[column]?.length ?? 0)));
  return rows
    .map((cells) => `  ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')}`)
    .join('\n');
}

/** Docker pulls over plain HTTP from this machine's own addresses without being told to. */
function example(registries: readonly RegistryConfig[], {host, port}: Running['address']): string {
  const local = ['0.0.0.0', '::', '127.0.0.1', '::1'].includes(host) ? 'localhost' : host;
  const registry = registries.find((candidate) => candidate.default) ?? registries[0];
  const prefix = registry?.default ? '' : `${registry?.name}/`;
  return `docker pull ${local}:${port}/${prefix}${registry?.library ? 'alpine' : 'REPOSITORY:TAG'}`;
}
