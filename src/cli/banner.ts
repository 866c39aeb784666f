import type {NetworkInterfaceInfo} from 'node:os';
import {resolve} from 'node:path';
import {hostInUrl, isEveryAddress, isLoopback} from '../address.ts';
import type {Config, RegistryConfig} from '../config.ts';
import type {Address} from '../listeners.ts';

export interface ServerInfo {
  version: string;
  config: Config;
  /** Where the configuration was read from. */
  source: string;
  /** The first that serves registries is the one to pull from. */
  addresses: readonly Address[];
  /** The process that reloads the configuration on SIGHUP. */
  pid: number;
  /** The addresses of this machine, as `os.networkInterfaces` gives them. */
  interfaces: NodeJS.Dict<NetworkInterfaceInfo[]>;
}

/** A machine with containers has dozens of addresses. */
const MAX_SHOWN_ADDRESSES = 3;

/** What `serve` prints for a person: where it listens, what it serves, where it stores, how to pull. */
export function banner({version, config, source, addresses, pid, interfaces}: ServerInfo): string {
  const {blobs, metadata} = config.storage;
  const main = addresses.find(({serves}) => serves === 'main');
  const others = main ? urlsForOthers(main, interfaces) : [];
  return `backref ${version} listens on ${main ? listeningText(main) : 'nothing'}

${elsewhere(others)}${besides(addresses.filter((address) => address !== main))}  configuration  ${source}; after a change: kill -HUP ${pid}
  cache          ${resolve(blobs.path)}, metadata in ${resolve(metadata.path)}

${table([['registry', 'upstream', 'reached as'], ...config.registries.map(row)])}

${main ? pulling(config.registries, main) : ''}
${plainHttp(others)}`;
}

/** `http://127.0.0.1:5000`, `unix:PATH`, or a sentence for every address. */
export const listeningText = ({url, host, port}: Address): string =>
  host !== undefined && isEveryAddress(host)
    ? `every address of this machine, port ${port}${isSecure(url) ? ', with TLS' : ''}`
    : url;

const isSecure = (url: string): boolean => url.startsWith('https:');

/** The URLs that clients on other machines use; none when they cannot reach this server. */
function urlsForOthers({host, port, url}: Address, interfaces: ServerInfo['interfaces']): string[] {
  if (host === undefined || isLoopback(host)) return [];
  if (!isEveryAddress(host)) return [url];
  const scheme = isSecure(url) ? 'https' : 'http';
  return Object.values(interfaces)
    .flatMap((addresses) => addresses ?? [])
    .filter(
      ({internal, family, address}) => !internal && family === 'IPv4' && !address.startsWith('169.254.'),
    )
    .map(({address}) => `${scheme}://${address}:${port}`)
    .slice(0, MAX_SHOWN_ADDRESSES);
}

const elsewhere = (others: readonly string[]): string =>
  others.length === 0 ? '' : `  for others     ${others.join(', ')}\n`;

/** The other listeners. */
const besides = (addresses: readonly Address[]): string =>
  addresses
    .map(
      (address) =>
        `  ${address.serves === 'admin' ? 'administration' : 'and on        '} ${listeningText(address)}\n`,
    )
    .join('');

/** Docker, Podman and others expect TLS from any other machine. */
const plainHttp = ([url = 'https:']: readonly string[]): string =>
  isSecure(url)
    ? ''
    : `backref speaks plain HTTP, which clients on other machines must allow: Docker with {"insecure-registries": ["${new URL(url).host}"]}.\n`;

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

/** Docker pulls from a loopback address over plain HTTP without being configured to, and from no Unix socket. */
function pulling(registries: readonly RegistryConfig[], {host, port}: Address): string {
  if (host === undefined)
    return 'Pull through it by a proxy in front: clients do not connect to a Unix socket.';
  const local = isEveryAddress(host) || isLoopback(host) ? 'localhost' : hostInUrl(host);
  const registry = registries.find((candidate) => candidate.default) ?? registries[0];
  const prefix = registry?.default ? '' : `${registry?.name}/`;
  return `Pull through it:  docker pull ${local}:${port}/${prefix}${registry?.library ? 'alpine' : 'REPOSITORY:TAG'}`;
}
