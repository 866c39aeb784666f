import type {Action, Scope} from '../caller.ts';

/** The scope of the catalogue, and of everything else that is about no single repository. */
export const CATALOG: Scope = Object.freeze({type: 'registry', name: 'catalog', actions: ['*']});

/** Clients that push also look whether something is there. */
const ACTIONS: Readonly<Record<Action, readonly string[]>> = {
  pull: ['pull'],
  push: ['pull', 'push'],
  attach: ['pull', 'push'],
  delete: ['delete'],
  admin: ['*'],
};

/** What a token must be for. @param name the repository's, as the client writes it */
export const scopeFor = (name: string, action: Action): Scope => ({
  type: 'repository',
  name,
  actions: ACTIONS[action],
});

/** Whether a token is for what is wanted. @param scopes undefined for a credential that is for everything */
export function covers(scopes: readonly Scope[] | undefined, wanted: Scope): boolean {
  if (scopes === undefined) return true;
  const given = scopes
    .filter(({type, name}) => type === wanted.type && name === wanted.name)
    .flatMap(({actions}) => actions);
  return given.includes('*') || wanted.actions.every((action) => given.includes(action));
}

/** As a challenge and a request for a token write it: `repository:org/app:pull,push`. */
export const formatScope = ({type, name, actions}: Scope): string => `${type}:${name}:${actions.join(',')}`;

/** A name may have a colon, `registry.local:5000/app`, and a type may have a class, `repository(plugin)`. */
const SCOPE = /^(?<type>[a-z0-9]+)(?:\([a-z0-9]+\))?:(?<name>[^\s"\\]+):(?<actions>[a-z*,]*)$/i;

/**
 * Reads a scope. @returns undefined for what cannot be read: a token is not for it then, as the specification of the
 * token protocol has it for what a server does not know.
 */
export function parseScope(text: string): Scope | undefined {
  const {type, name, actions} = SCOPE.exec(text)?.groups ?? {};
  if (type === undefined || name === undefined || actions === undefined) return undefined;
  return {type, name, actions: [...new Set(actions.split(',').filter((action) => action !== ''))]};
}
