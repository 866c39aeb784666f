import type {RegistryConfig} from '../config.ts';
import type {PlacedFault} from './fault.ts';
import {formatPath, type Path, subtree, type Tree, valueAt} from './tree.ts';
import {parseDuration} from './units.ts';

const fault = (at: Path, problem: string): PlacedFault => ({path: formatPath(at), at, problem});

/** What does not go with `upstream.credentials: passthrough`, where the upstream decides for each caller. */
export function passthroughFaults(name: string, registry: Tree): PlacedFault[] {
  if (subtree(registry, 'upstream')['credentials'] !== 'passthrough') return [];
  return [
    ...(registry['push'] === 'local'
      ? [
          fault(
            ['registries', name, 'push'],
            'does not go with upstream.credentials: passthrough, because the upstream cannot decide who may have what is kept here: write through or deny, and keep what is pushed in a registry of its own',
          ),
        ]
      : []),
    ...keptFaults(name, registry),
  ];
}

/** The upstream can approve nobody for what it does not have. */
function keptFaults(name: string, {tags}: Tree): PlacedFault[] {
  const at: Path = ['registries', name, 'tags'];
  const entries = Array.isArray(tags)
    ? tags.map((entry: unknown, index) => ({entry, path: [...at, index]}))
    : [{entry: tags, path: at}];
  return entries.flatMap(({entry, path}) => {
    const kept = valueAt(entry, ['keepDeleted']);
    return kept === undefined || parseDuration(kept) === 0
      ? []
      : [
          fault(
            [...path, 'keepDeleted'],
            'must be 0 with upstream.credentials: passthrough, because the upstream cannot say who may have what it has deleted: remove it',
          ),
        ];
  });
}

/** Without a host of its own, clients can present their logins only where the registry's own name leads here. */
export function passthroughWarnings({
  name,
  hosts,
  upstream,
}: RegistryConfig): Pick<PlacedFault, 'path' | 'problem'>[] {
  if (upstream?.credentials?.kind !== 'passthrough' || hosts.length > 0) return [];
  return [
    {
      path: formatPath(['registries', name, 'hosts']),
      problem: `is empty: with upstream.credentials: passthrough, clients log in at a host of the registry's own. Add one, e.g. ${name.replace(/:\d+$/, '')}.mirror.example; at any other host they are anonymous to the upstream`,
    },
  ];
}
