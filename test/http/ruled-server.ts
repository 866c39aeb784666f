import {createAuthenticator, type Identity, type LoginMethod} from '../../src/identity/authenticator.ts';
import type {AccessSettings} from '../../src/registry/access-policy.ts';
import {createMovableClock, type RegistryOverrides} from '../support/backref.ts';
import type {Lifetime} from '../support/shared.ts';
import {type InProcess, wireInProcess} from '../support/wired.ts';
import {ask, OPEN_DOOR, startHttpServer} from './http-server.ts';

/** A request, and who sends it. */
export interface RuledRequest {
  method?: string;
  path: string;
  headers?: Record<string, string>;
  body?: Buffer;
}

export type RuledAnswer = Awaited<ReturnType<typeof ask>>;

/** Who sends a request: somebody who has logged in, or nobody, from this machine or from another one. */
export type Sender = Identity | 'local' | 'remote';

export interface RuledServer extends InProcess<ReturnType<typeof createMovableClock>> {
  readonly port: number;
  send(sender: Sender, request: RuledRequest): Promise<RuledAnswer>;
  /** What a request of this sender has in its headers. */
  headersOf(sender: Sender): Record<string, string>;
}

/**
 * A server with rules, over real storage and a real socket, on which everybody can log in as the one that a test says.
 * The first registry is the default one, `docker.io`.
 */
export async function startRuledServer(
  t: Lifetime,
  {access, registries}: {access: Partial<AccessSettings>; registries: RegistryOverrides[]},
): Promise<RuledServer> {
  const clock = createMovableClock();
  const wired = await wireInProcess(t, {clock, registries, config: {access}});
  const identities: Identity[] = [];
  const method: LoginMethod = {
    name: 'test',
    isOpen: () => true,
    check: async ({secret}) => identities[Number(secret)],
  };
  const {port} = await startHttpServer(t, {
    ...OPEN_DOOR,
    verbs: wired.verbs,
    access: wired.content.access,
    authenticator: createAuthenticator([method], wired.events),
    ownLogins: wired.identity.ownLogins,
    registries: wired.registries,
    clock,
  });

  function headersOf(sender: Sender): Record<string, string> {
    if (sender === 'local') return {};
    // A forwarded request may come from anywhere.
    if (sender === 'remote') return {'x-forwarded-for': '10.0.0.1'};
    if (!identities.includes(sender)) identities.push(sender);
    return {authorization: `Basic ${Buffer.from(`x:${identities.indexOf(sender)}`).toString('base64')}`};
  }

  return {
    ...wired,
    port,
    headersOf,
    send: (sender, {method: verb = 'GET', path, headers, body}) =>
      ask(port, verb, path, body, {...headersOf(sender), ...headers}),
  };
}
