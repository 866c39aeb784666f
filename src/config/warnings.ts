import type {Config} from '../config.ts';
import {isLoopback} from './host.ts';

/** Something that is allowed, and that the person who wrote it may not have meant. */
export interface Warning {
  /** The setting to look at. */
  path: string;
  /** What may happen, and what to do. */
  problem: string;
}

/** What a configuration without faults is worth warning of. */
export function configWarnings({listen, registries}: Config): Warning[] {
  const pushed = registries.filter(({push}) => push !== 'deny').map(({name}) => name);
  if (pushed.length === 0 || isLoopback(listen.host)) return [];
  return [
    {
      path: 'listen.host',
      problem: `anyone who can reach ${listen.host} can push to ${pushed.join(', ')}: backref checks no credentials of clients. Listen on 127.0.0.1, let only trusted clients reach it, or put a proxy with authentication in front`,
    },
  ];
}
