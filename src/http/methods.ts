import type {Action} from '../caller.ts';
import {OciError} from '../oci/errors.ts';
import type {Route} from '../registry/namespace.ts';
import type {Request} from './request.ts';

/** Without HEAD, GET answers it too, unless it belongs to pushing. */
export type Methods<T> = Readonly<Partial<Record<'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE', T>>>;

type Operations = Readonly<Record<string, {readonly action?: Action} | undefined>>;

/**
 * What a method does.
 * @param takesPushes asked only for what a refusal names
 * @throws OciError 405 with the methods that are served (RFC 9110, section 15.5.6)
 */
export function operationFor<T>(
  methods: Methods<T & {readonly action?: Action}>,
  {method}: Request,
  takesPushes: () => boolean,
): T {
  const served: Readonly<Record<string, T | undefined>> = methods;
  const own = served[method];
  if (own) return own;
  const reads = readsOf(methods);
  if (methods.GET && reads.includes(method)) return methods.GET;
  const writes = Object.keys(methods).filter((name) => !reads.includes(name));
  throw methodRefused(method, takesPushes() ? [...reads, ...writes] : reads);
}

/** The methods that are served whether or not the registry takes pushes. */
export const readsOf = ({GET: get}: Operations): readonly string[] =>
  get && get.action !== 'attach' ? ['GET', 'HEAD'] : [];

function methodRefused(method: string, allow: readonly string[]): OciError {
  const supported = allow.join(', ');
  return new OciError('UNSUPPORTED', {
    message: `${method} is not supported here${supported === '' ? '' : `; supported are ${supported}`}`,
    headers: {Allow: supported},
  });
}

/** @param allow the methods that are served */
export const pushRefused = ({registry: {name, upstream}}: Route, allow: readonly string[]): OciError =>
  new OciError('UNSUPPORTED', {
    message: `registry ${name} is a mirror and takes no pushes: registries.${name}.push is "deny"; push to ${upstream.host} itself, or set it to "through", which writes to ${upstream.host}, or to "local", which keeps what is pushed here`,
    headers: {Allow: allow.join(', ')},
  });
