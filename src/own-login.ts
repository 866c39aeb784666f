/**
 * The user name and the password that a caller presented for one registry. Whatever prints or serializes values shows
 * nothing of them, and only the client of that registry's upstream gets them.
 */
export class OwnLogin {
  /** The registry's name in the configuration. */
  readonly registry: string;
  readonly #host: string;
  readonly #username: string;
  readonly #password: string;
  #isAccepted = false;

  /** @param host the upstream's, with its port if it has one */
  constructor(registry: string, host: string, {username, password}: {username: string; password: string}) {
    this.registry = registry;
    this.#host = host;
    this.#username = username;
    this.#password = password;
  }

  /** @param host of the upstream that asks. @returns undefined for any other than the one that it was presented for */
  for(host: string): {readonly username: string; readonly password: string} | undefined {
    return host === this.#host ? {username: this.#username, password: this.#password} : undefined;
  }

  /** Notes that the upstream, or its token service, was sent this login and accepted it. @param host the upstream's */
  accept(host: string): void {
    if (host === this.#host) this.#isAccepted = true;
  }

  /** False as well where the upstream answered without asking for a login: then nobody has checked it. */
  get isAccepted(): boolean {
    return this.#isAccepted;
  }
}
