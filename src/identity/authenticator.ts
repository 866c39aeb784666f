import type {Grant, Scope} from '../caller.ts';
import type {Events} from '../events.ts';
import type {CertificateNames, IdentifyCertificate} from './certificates.ts';

/** Who somebody is. */
export interface Identity {
  /** Its own name first, then those of its groups and of the claims about it: what rules call it. */
  readonly names: readonly [string, ...string[]];
  /** What its credential grants, and beyond which no rule lets it go. */
  readonly bound?: Grant | undefined;
  /** What its bearer token is for. Undefined for a credential that is for everything. */
  readonly scopes?: readonly Scope[] | undefined;
  /** When its credential expires: milliseconds since the epoch. A token that is issued for it ends no later. */
  readonly until?: number | undefined;
  /**
   * Why it is believed, without saying anything about its credential: a token that is issued for it ends with that.
   * Undefined for nobody.
   */
  readonly source?: Source | undefined;
  /** A login for the upstream of a registry that came with its token, as `OwnLogins` sealed it. */
  readonly sealed?: string | undefined;
}

/** A password, a secret or a setting that can be withdrawn. */
export interface Source {
  /** The name of the `TokenSource`. */
  readonly method: string;
  /** Changes with the password, the secret or the setting. */
  readonly id: string;
}

/** What tokens are issued for, and what ends them. */
export interface TokenSource {
  /** For metrics and events: `password`, `robot`. */
  readonly name: string;
  /** Whether its credentials are good for a login only while they are new, so that none gets a refresh token. */
  readonly isCheckedOnce?: boolean;
  /**
   * Who somebody is now that logged in earlier. @param own who it was then
   * @returns undefined when what it logged in with is no longer valid
   */
  recall?(own: Identity, id: string): Identity | undefined;
}

export const NOBODY: Identity = Object.freeze({names: ['anonymous'] as const});

/** What a client presents to show who it is. */
export interface Credential {
  /** `basic`: a user's name and a secret. `bearer`: a secret alone. */
  readonly scheme: 'basic' | 'bearer';
  /** Undefined for a bearer token. */
  readonly username: string | undefined;
  readonly secret: string;
  /** The client's address, where known. */
  readonly address: string | undefined;
}

/** One kind of credential that somebody may log in with. */
export interface LoginMethod extends TokenSource {
  /** Whether its credentials come with every request, so that accepting one is nothing to report. */
  readonly isRoutine?: boolean;
  /** Whether anybody could log in in this way now. */
  isOpen(): boolean;
  /**
   * @returns undefined for a credential of another kind, which another method is asked about
   * @throws LoginRefused for a credential of this kind that is wrong; OciError TOOMANYREQUESTS
   */
  check(credential: Credential): Promise<Identity | undefined>;
  /**
   * Whether a secret says itself that it is of this kind. Such a secret is checked even while nobody can log in: its
   * sender does not mean to be anonymous.
   */
  owns?(secret: string): boolean;
  /**
   * Who shows a credential that was checked before, if a further check would find nothing else.
   * @returns undefined where it has to be checked
   */
  remembered?(credential: Omit<Credential, 'address'>): HeldIdentity | undefined;
  /** A credential was shown once more without a check. @param id of its source. @param at milliseconds since the epoch */
  used?(id: string, at: number): void;
}

/** Who shows a credential, and for how long it stays so unless what logins depend on changes. */
export interface HeldIdentity {
  readonly identity: Identity;
  /** Milliseconds since the epoch; it has to be checked from then on. */
  readonly until: number;
}

/** Who shows an `Authorization` header, and what each further time is reported as. */
export interface RememberedLogin extends HeldIdentity {
  readonly use: LoginUse;
}

/** What to report whenever a credential is used. */
export interface LoginUse {
  /** The method of `login.accepted`; undefined where that is not emitted. */
  readonly method: string | undefined;
  readonly source: Source | undefined;
}

/** A credential is wrong. Its message goes to the client and the log: it says nothing that helps to guess. */
export class LoginRefused extends Error {
  override readonly name = 'LoginRefused';
  /** Whether it was a bearer token, which its client should replace. */
  readonly isToken: boolean;
  /** The name of whom it would be, where there is such a caller: for the log and the audit log alone. */
  readonly claimed: string | undefined;

  constructor(message: string, options: {isToken?: boolean; claimed?: string | undefined} = {}) {
    super(message);
    this.isToken = options.isToken ?? false;
    this.claimed = options.claimed;
  }
}

/** What a request shows of who sent it. */
export interface Presented {
  /** The `Authorization` header. */
  readonly authorization: string | undefined;
  /** The client's address, where known. */
  readonly address: string | undefined;
  /** The certificate that it proved by TLS to own. Counts for a request without a credential. */
  readonly certificate?: CertificateNames | undefined;
}

/** Finds out who asks. */
export interface Authenticator {
  /**
   * Whether anybody could log in now. While nobody can, credentials are not read: Docker sends those of Docker Hub to a
   * mirror.
   */
  isOpen(): boolean;
  /**
   * @returns NOBODY for a request without a credential and a certificate
   * @throws LoginRefused for a wrong credential, which never makes its sender anonymous; OciError TOOMANYREQUESTS
   */
  identify(presented: Presented): Promise<Identity>;
  /**
   * Who an `Authorization` header belongs to, as `identify` would say at once.
   * @returns undefined where it has to be asked
   */
  remembered(authorization: string): RememberedLogin | undefined;
  /**
   * Reports that a remembered credential was shown once more, as `identify` would.
   * @param at milliseconds since the epoch
   */
  used(use: LoginUse, at: number): void;
  /** The same for a credential that came in another way. @returns NOBODY as well while nobody can log in */
  check(credential: Credential): Promise<Identity>;
}

/**
 * @param methods each is asked until one knows the credential's kind, in this order
 * @param certificates whom certificates belong to
 */
export function createAuthenticator(
  methods: readonly LoginMethod[],
  events: Events,
  certificates: IdentifyCertificate = () => undefined,
): Authenticator {
  const isOpen = (): boolean => methods.some((method) => method.isOpen());
  const check = async (credential: Credential): Promise<Identity> => {
    if (!isOpen() && !methods.some((method) => method.owns?.(credential.secret))) return NOBODY;
    let asked = 'unknown';
    try {
      for (const method of methods) {
        asked = method.name;
        const identity = await method.check(credential);
        if (identity === undefined) continue;
        if (!method.isRoutine) events.emit('login.accepted', {method: method.name});
        return identity;
      }
      asked = 'unknown';
      throw credential.scheme === 'bearer'
        ? new LoginRefused('the bearer token is not one that is valid here', {isToken: true})
        : new LoginRefused(WRONG_PASSWORD);
    } catch (error) {
      if (error instanceof LoginRefused)
        events.emit('login.refused', {method: asked, reason: error.message, client: credential.address});
      throw error;
    }
  };
  return {
    isOpen,
    check,
    remembered(authorization) {
      const credential = readableIn(authorization);
      const isRead = credential && (isOpen() || methods.some((method) => method.owns?.(credential.secret)));
      if (!isRead) return isOpen() ? undefined : IGNORED;
      for (const method of methods) {
        const held = method.remembered?.(credential);
        if (!held) continue;
        const use = {method: method.isRoutine ? undefined : method.name, source: held.identity.source};
        return {...held, use};
      }
      return undefined;
    },
    used({method, source}, at) {
      if (method !== undefined) events.emit('login.accepted', {method});
      if (source) methods.find(({name}) => name === source.method)?.used?.(source.id, at);
    },
    async identify({authorization, address, certificate}) {
      const owner = () => (certificate && certificates(certificate)) ?? NOBODY;
      if (authorization === undefined) return owner();
      const credential = isOpen() ? parseAuthorization(authorization) : readableIn(authorization);
      const identity = credential ? await check({...credential, address}) : NOBODY;
      return identity === NOBODY ? owner() : identity;
    },
  };
}

/** A credential that is not read. */
const IGNORED: RememberedLogin = {
  identity: NOBODY,
  until: Number.POSITIVE_INFINITY,
  use: {method: undefined, source: undefined},
};

/** A credential that may not be meant for this server. */
function readableIn(authorization: string): Omit<Credential, 'address'> | undefined {
  try {
    return parseAuthorization(authorization);
  } catch {
    return undefined;
  }
}

/** The same whether or not there is such a user. */
export const WRONG_PASSWORD = 'the user name or the password is wrong';

/**
 * Reads an `Authorization` header: Basic (RFC 7617) or Bearer (RFC 6750).
 * @throws LoginRefused for any other scheme, and for what cannot be read
 */
export function parseAuthorization(header: string): Omit<Credential, 'address'> {
  const [, scheme = '', text = ''] = /^(\S+) +(\S+) *$/.exec(header) ?? [];
  switch (scheme.toLowerCase()) {
    case 'bearer':
      return {scheme: 'bearer', username: undefined, secret: text};
    case 'basic': {
      const decoded = Buffer.from(text, 'base64').toString();
      const colon = decoded.indexOf(':');
      if (colon >= 0)
        return {scheme: 'basic', username: decoded.slice(0, colon), secret: decoded.slice(colon + 1)};
    }
  }
  throw new LoginRefused(
    'the Authorization header cannot be read: it must be "Basic" with the user name and the password in base64, or "Bearer" with a token',
  );
}
