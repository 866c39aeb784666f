import type {Image} from '../../rig/image.ts';
import type {Scope} from '../../rig/scope.ts';
import type {Tool, Toolbox} from '../../rig/tools.ts';

/** The surroundings of one pull of one client. */
export interface Pull {
  /** Used only by this pull, so that nothing is left of an earlier one. */
  scope: Scope;
  tools: Toolbox;
  /** `127.0.0.1:port` of the registry or mirror. */
  host: string;
  images: readonly Image[];
}

/** A real client. */
export interface Client {
  /** Its name in the table. */
  name: string;
  /** The tools that it needs; the first one's version is shown in the table. */
  tools: readonly [Tool, ...Tool[]];
  /** Pulls every image. @throws Error when a pull fails, or when a digest is not the one that was pushed. */
  pull(pull: Pull): Promise<void>;
}

/**
 * The environment of a client's command: its own home, so that no configuration or credential of the
 * user who runs this is used, and no HTTP proxy between it and 127.0.0.1.
 */
export function cleanEnvironment(scope: Scope): NodeJS.ProcessEnv {
  const {PATH} = process.env;
  return {
    PATH: `${PATH}:/usr/sbin:/sbin`,
    HOME: scope.folder,
    XDG_RUNTIME_DIR: scope.folder,
    TMPDIR: scope.folder,
    NO_PROXY: '127.0.0.1',
  };
}

/** @throws Error naming what is missing and what came instead. */
export function expectAll(what: string, expected: readonly string[], actual: readonly string[]): void {
  const absent = expected.filter((digest) => !actual.includes(digest));
  if (absent.length === 0) return;
  throw new Error(
    `${what} are not those pushed: ${absent.join(', ')} missing among ${actual.join(', ') || 'none'}`,
  );
}

/** @throws Error */
export function expectSame(what: string, expected: readonly string[], actual: readonly string[]): void {
  if (expected.join() === actual.join()) return;
  throw new Error(
    `${what} is not what was pushed: ${actual.join(', ') || 'nothing'} instead of ${expected.join(', ')}`,
  );
}
