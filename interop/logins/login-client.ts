import type {Image} from '../../rig/image.ts';
import type {Scope} from '../../rig/scope.ts';
import type {Tool, Toolbox} from '../../rig/tools.ts';
import {cleanEnvironment} from '../clients/client.ts';

/** What a client is given to log in with. */
export type Credential =
  | {kind: 'none'}
  | {kind: 'password'; user: string; secret: string}
  /** A bearer token that it sends as it is. */
  | {kind: 'access token'; secret: string}
  /** A token for which it gets access tokens; Docker calls it an identity token. */
  | {kind: 'refresh token'; secret: string};

/** Where a client works. */
export interface LoginPlace {
  /** Of this client's session alone: nothing is left of an earlier one. */
  scope: Scope;
  tools: Toolbox;
  /** The registry's name. */
  host: string;
  /** The URL of the proxy through which it is reached. */
  proxy: string;
  /** The path of the certificate of its authority; undefined for a client that was not given it. */
  ca: string | undefined;
  /** An image in the registry. */
  image: Image;
  /** One that is to be pushed. */
  own: Image;
  /** Whether a client that asks for it gets a refresh token for its password. */
  refreshes: boolean;
  /** A repository of the registry that is empty. */
  empty: string;
}

/** A client's session: its own home, and its own daemon if it has one. */
export interface LoginSession {
  /** Logs in, in the way that people do. @throws Error when the client checks the credential and it is refused */
  login(credential: Credential): Promise<void>;
  /** Pushes an image into the empty repository, or signs the image. @throws Error */
  push(): Promise<void>;
  /** Pulls the image, or verifies what was pushed. @throws Error */
  pull(): Promise<void>;
}

/** A real client that logs in. */
export interface LoginClient {
  /** Its name in the table. */
  name: string;
  /** The tools that it needs; the first one's version is shown in the table. */
  tools: readonly [Tool, ...Tool[]];
  /** Whether its login fails for a wrong password. Others keep it unseen, and fail later. */
  checksLogin: boolean;
  /** Milliseconds before the end of an access token at which it gets the next one; without it, none. */
  renewsEarlyMs?: number;
  /** The kinds of credential that it cannot be given, with the reason. */
  cannot?: Partial<Record<Credential['kind'], string>>;
  /** What it prints when its access token expires during a pull, if that ends the pull. The next one works. */
  stumbles?: RegExp;
  open(place: LoginPlace): Promise<LoginSession>;
}

/** The environment of a client's command, with the way to the registry. */
export const environment = ({scope, proxy}: LoginPlace): NodeJS.ProcessEnv => ({
  ...cleanEnvironment(scope),
  HTTPS_PROXY: proxy,
});

/** The same for clients without an option for an authority: they trust it as part of the system's. */
export const environmentWithCa = (place: LoginPlace): NodeJS.ProcessEnv => ({
  ...environment(place),
  ...(place.ca === undefined ? {} : {SSL_CERT_FILE: place.ca}),
});

/** The image's name at the registry. */
export const imageName = ({host, image}: LoginPlace): string => `${host}/${image.repository}:${image.tag}`;

/** The name under which it is pushed. */
export const pushedName = ({host, own, empty}: LoginPlace): string => `${host}/${empty}:${own.tag}`;
