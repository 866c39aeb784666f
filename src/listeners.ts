import {isLocalOnly, type ListenAddress, localUrl} from './address.ts';
import type {Clock} from './clock.ts';
import type {ListenerConfig} from './config.ts';
import type {Events} from './events.ts';
import type {App} from './http/app.ts';
import {createTrustedProxies} from './http/entrance.ts';
import type {Limits} from './http/limits.ts';
import {createListener, type Listener} from './http/listener.ts';

/** Where a server listens, as a client on this machine reaches it. */
export interface Address {
  /** Undefined for a Unix socket, as the port. */
  host: string | undefined;
  port: number | undefined;
  /** The path of a Unix socket. */
  socket: string | undefined;
  /** `http://…`, `https://…`, or `unix:PATH`. */
  url: string;
  /** `main` serves registries, `admin` what operators and monitoring ask. */
  serves: 'main' | 'admin';
}

/** The listeners of one server. */
export interface Listeners {
  /**
   * Listens everywhere, in the order of the configuration.
   * @throws the first error of a listener; `close` ends those that listen already
   */
  listen(): Promise<readonly Address[]>;
  /** Accepts nothing new, lets running requests end within `grace` milliseconds, then cuts the rest. */
  close(grace: number): Promise<void>;
  /** In the order of the configuration. */
  readonly all: readonly Listener[];
}

export interface ListenersParts {
  /** Whether several sockets can listen on a port: see `canSharePorts`. */
  isShared: boolean;
  app: App;
  /** How many connections may be open, those of all listeners together. */
  limits: Limits;
  clock: Clock;
  events: Events;
}

/** Creates one listener for each entry of the configuration. They share the application. */
export function createListeners(configs: readonly ListenerConfig[], parts: ListenersParts): Listeners {
  const listeners = configs.map((config, number) => ({
    config,
    listener: createConfigured(config, number, parts),
  }));
  return {
    all: listeners.map(({listener}) => listener),
    async listen() {
      const addresses: Address[] = [];
      for (const {config, listener} of listeners) addresses.push(describe(await listener.listen(), config));
      return addresses;
    },
    async close(grace) {
      await Promise.all(listeners.map(({listener}) => listener.close(grace)));
    },
  };
}

function createConfigured(config: ListenerConfig, number: number, parts: ListenersParts): Listener {
  const {address, tls, serve, trustedProxies, sendTimeout} = config;
  const isShared = parts.isShared && canShare(config);
  const entrance = {
    number,
    isLoopback: isLocalOnly(address),
    isSecure: tls !== undefined,
    serves: serve,
    isTrustedProxy: createTrustedProxies(trustedProxies),
    certificate: undefined,
  };
  return createListener({...parts, isShared, address, tls, entrance, sendTimeout});
}

/** Whether workers can listen where a listener does. What operators ask is the owner's alone. */
export const canShare = ({address, serve}: ListenerConfig): boolean => 'host' in address && serve === 'main';

function describe(address: ListenAddress, {tls, serve}: ListenerConfig): Address {
  const {host, port, socket} = {host: undefined, port: undefined, socket: undefined, ...address};
  return {host, port, socket, url: localUrl(address, tls !== undefined), serves: serve};
}
