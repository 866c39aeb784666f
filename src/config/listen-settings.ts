import type {ListenerConfig} from '../config.ts';
import {isRecord} from '../oci/json.ts';
import {MAX_SOCKET_PATH_BYTES} from '../unix-socket.ts';
import type {PlacedFault} from './fault.ts';
import {formatPath, type Path, type Tree} from './tree.ts';
import {formatDuration} from './units.ts';

const DEFAULT_HOST = '0.0.0.0';
const DEFAULT_PORT = 5000;
/** Its owner and their group may connect. */
const DEFAULT_SOCKET_MODE = 0o660;

/** What the schema makes of one listener. */
export interface ListenerSettings extends Omit<ListenerConfig, 'address' | 'tls'> {
  host?: string | undefined;
  port?: number | undefined;
  socket?: string | undefined;
  socketMode?: number | undefined;
  tls?: {cert: string; key: string; clientCa?: string | undefined} | undefined;
}

/** One mapping is one listener; the checks ensure that each has an address or a socket. */
export const assembleListen = (
  settings: ListenerSettings | readonly ListenerSettings[],
): readonly ListenerConfig[] => ('serve' in settings ? [settings] : settings).map(assembleListener);

function assembleListener(settings: ListenerSettings): ListenerConfig {
  const {host, port, socket, socketMode, tls, ...rest} = settings;
  return {
    address:
      socket === undefined
        ? {host: host ?? DEFAULT_HOST, port: port ?? DEFAULT_PORT}
        : {socket, socketMode: socketMode ?? DEFAULT_SOCKET_MODE},
    tls: tls && {...tls, clientCa: tls.clientCa},
    ...rest,
  };
}

/** The listeners in the shape of the file: a mapping for one, else a list. */
export function describeListen(listen: readonly ListenerConfig[]): Tree | Tree[] {
  const described = listen.map(describeListener);
  const [first] = described;
  return described.length === 1 && first ? first : described;
}

const describeListener = ({address, tls, sendTimeout, trustedProxies, serve}: ListenerConfig): Tree => ({
  ...('socket' in address
    ? {socket: address.socket, socketMode: address.socketMode.toString(8).padStart(4, '0')}
    : address),
  ...(tls ? {tls} : {}),
  serve,
  sendTimeout: formatDuration(sendTimeout),
  trustedProxies,
});

/** The listeners as they are written, each with its place. */
export function listenersIn({listen}: Tree): {listener: Tree; at: Path}[] {
  if (isRecord(listen)) return [{listener: listen, at: ['listen']}];
  if (!Array.isArray(listen)) return [];
  return listen.flatMap((listener, index) => (isRecord(listener) ? [{listener, at: ['listen', index]}] : []));
}

const fault = (at: Path, problem: string): PlacedFault => ({path: formatPath(at), at, problem});

/** Checks that each listener has one address of its own, and that some serve registries. */
export function checkListen(tree: Tree): PlacedFault[] {
  const listeners = listenersIn(tree);
  return [
    ...listeners.flatMap(({listener, at}) => checkListener(listener, at)),
    ...checkAddresses(listeners),
    ...checkServed(tree, listeners),
  ];
}

function checkListener({socket, host, port, socketMode, tls, trustedProxies}: Tree, at: Path): PlacedFault[] {
  if (socket === undefined) {
    const isUnixTrusted = Array.isArray(trustedProxies) && trustedProxies.includes('unix');
    return [
      ...(socketMode === undefined ? [] : [fault([...at, 'socketMode'], 'is for a listener with a socket')]),
      ...(isUnixTrusted
        ? [fault([...at, 'trustedProxies'], 'may have "unix" only for a listener with a socket')]
        : []),
    ];
  }
  const faults = [];
  if (host !== undefined || port !== undefined)
    faults.push(fault([...at, 'socket'], 'cannot stand beside host and port: add another listener for them'));
  if (tls !== undefined)
    faults.push(fault([...at, 'tls'], 'is not for a Unix socket, whose peers are on this machine'));
  if (Buffer.byteLength(String(socket)) > MAX_SOCKET_PATH_BYTES)
    faults.push(fault([...at, 'socket'], `must be a path of at most ${MAX_SOCKET_PATH_BYTES} bytes`));
  return faults;
}

function checkAddresses(listeners: readonly {listener: Tree; at: Path}[]): PlacedFault[] {
  const owners = new Map<string, Path>();
  return listeners.flatMap(({listener: {socket, host = DEFAULT_HOST, port = DEFAULT_PORT}, at}) => {
    const address = socket === undefined ? `${host}:${port}` : String(socket);
    const owner = owners.get(address);
    if (String(port) !== '0' || socket !== undefined) owners.set(address, owner ?? at);
    return owner
      ? [fault(at, `listens on ${address}, as ${formatPath(owner)} does: choose another port`)]
      : [];
  });
}

function checkServed({listen}: Tree, listeners: readonly {listener: Tree; at: Path}[]): PlacedFault[] {
  if (Array.isArray(listen) && listen.length === 0)
    return [fault(['listen'], 'is empty: name at least one listener, or remove the key')];
  const [first] = listeners;
  if (!first || listeners.some(({listener}) => listener['serve'] !== 'admin')) return [];
  return [
    fault(
      [...first.at, 'serve'],
      'is admin for every listener: add one that serves registries (serve: main)',
    ),
  ];
}
