import type {RegistryConfig} from '../config.ts';

/** Why a pattern for repositories or images cannot match anything of these registries; undefined where it can. */
export function whyUnmatched(
  glob: string,
  registries: readonly Pick<RegistryConfig, 'name' | 'library'>[],
): string | undefined {
  const [host = '', ...repository] = glob.split('/');
  if (/[*?[{]/.test(host)) return undefined;
  const registry = registries.find(({name}) => name === host);
  if (!registry)
    return `matches nothing: "${host}" is not the name of a registry here. Write one of ${registries.map(({name}) => name).join(', ')}`;
  return registry.library && repository.length === 1 && !glob.includes('**')
    ? `matches nothing: the repositories of ${host} have two components at least. Write ${host}/library/${repository[0]}`
    : undefined;
}
