import type {NetworkInterfaceInfo} from 'node:os';
import {resolve} from 'node:path';
import {hostInUrl, isEveryAddress, isLoopback} from '../address.ts';
import type {Config, RegistryConfig} from '../config.ts';

/** Where the server listens. */
interface Listening {
  url: string;
  host: string;
  port: number;
}

export interface ServerInfo {
  version: string;
  config: Config;
  /** Where the configuration was read from. */
  source: string;
  address: Listening;
  /** The process that reloads the configuration on SIGHUP. */
  pid: number;
  /** The addresses of this machine, as `os.networkInterfaces` gives them. */
  interfaces: NodeJS.Dict<NetworkInterfaceInfo[]>;
}

/** A machine with containers has dozens of addresses. */
const MAX_SHOWN_ADDRESSES = 3;

/** What `serve` prints for a person: where it listens, what it serves, where it stores, how to pull. */
export function banner({version, config, source, address, pid, interfaces}: ServerInfo): string {
  const {blobs, metadata} = config.storage;
  const others = hostsForOthers(address.host, interfaces).map((host) => `${host}:${address.port}`);
  return `backref ${version} listens on ${listeningText(address)}

${elsewhere(others)}  configuration  ${source}; after a change: kill -HUP ${pid}
  cache          ${resolve(blobs.path)}, metadata in ${resolve(metadata.path)}

${table([['registry', 'upstream', 'reached as'], ...config.registries.map(row)])}

Pull through it:  ${example(config.registries, address)}
${plainHttp(others)}`;
}

/** `http://127.0.0.1:5000`, or a sentence for every address. */
export const listeningText = ({url, host, port}: Listening): string =>
  isEveryAddress(host) ? `every address of this machine, port ${port}` : url;

/** The hosts that clients on other machines use; none when they cannot reach this server. */
function hostsForOthers(host: string, interfaces: ServerInfo['interfaces']): string[] {
  if (isLoopback(host)) return [];
  if (!isEveryAddress(host)) return [hostInUrl(host)];
  return Object.values(interfaces)
    .flatMap((addresses) => addresses ?? [])
    .filter(
      ({internal, family, address}) => !internal && family === 'IPv4' && !address.startsWith('169.254.'),
    )
    .map(({address}) => address)
    .slice(0, MAX_SHOWN_ADDRESSES);
}

const elsewhere = (others: readonly string[]): string =>
  others.length === 0 ? '' : `  for others     ${others.map((host) => `http://${host}`).join(', ')}\n`;

/** Docker, Podman and others expect TLS from any other machine. */
const plainHttp = ([host]: readonly string[]): string =>
  host === undefined
    ? ''
    : `backref speaks plain HTTP, which clients on other machines must allow: Docker with {"insecure-registries": ["${host}"]}.\n`;

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

/** Docker pulls from a loopback address over plain HTTP without being configured to. */
function example(registries: readonly RegistryConfig[], {host, port}: Listening): string {
  const local = isEveryAddress(host) || isLoopback(host) ? 'localhost' : hostInUrl(host);
  const registry = registries.find((candidate) => candidate.default) ?? registries[0];
  const prefix = registry?.default ? '' : `${registry?.name}/`;
  return `docker pull ${local}:${port}/${prefix}${registry?.library ? 'alpine' : 'REPOSITORY:TAG'}`;
}
