import {mkdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import type {Scope} from '../../rig/scope.ts';
import type {Tool, Toolbox} from '../../rig/tools.ts';
import {cleanEnvironment} from '../clients/client.ts';
import {PRIVATE} from '../logins/site.ts';

/** Whose user name and password a client has. */
export type LoginOf = 'docker.io' | 'the mirror';

/** A client that pulls through a mirror. */
export interface MirrorPlace {
  /** Of this pull alone. */
  scope: Scope;
  tools: Toolbox;
  /** The mirror's name. */
  mirror: string;
  /** The URL of the proxy through which it is reached. */
  proxy: string;
  /** The path of the certificate of its authority. */
  ca: string;
  /** The client's only login. */
  login: {of: LoginOf; user: string; secret: string};
}

/** A real client that has a mirror of docker.io, and a login. */
export interface MirrorClient {
  /** Its name in the table. */
  name: string;
  /** The tools that it needs; the first one's version is shown in the table. */
  tools: readonly [Tool, ...Tool[]];
  /** How the mirror gets a user's name and password when it asks for them; undefined if it does not get those. */
  sends: Readonly<Record<LoginOf, string | undefined>>;
  /** Pulls `IMAGE`. @throws Error */
  pull(place: MirrorPlace): Promise<void>;
}

/** The image that is pulled. */
export const IMAGE = `docker.io/${PRIVATE.repository}:${PRIVATE.tag}`;

export const environment = ({scope, proxy, ca}: MirrorPlace): NodeJS.ProcessEnv => ({
  ...cleanEnvironment(scope),
  HTTPS_PROXY: proxy,
  SSL_CERT_FILE: ca,
});

/** Writes the login as `docker login` does, into the home of the client. */
export async function writeLogin(
  {scope, mirror, login: {of, user, secret}}: MirrorPlace,
  hub = 'https://index.docker.io/v1/',
): Promise<void> {
  const folder = join(scope.folder, '.docker');
  const auth = Buffer.from(`${user}:${secret}`).toString('base64');
  await mkdir(folder, {recursive: true});
  await writeFile(
    join(folder, 'config.json'),
    JSON.stringify({auths: {[of === 'docker.io' ? hub : mirror]: {auth}}}),
  );
}
