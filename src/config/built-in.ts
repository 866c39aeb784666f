import type {Tree} from './tree.ts';

/**
 * The registries that are served where the settings name none: Docker Hub at the root, the others by `ns` or by path
 * prefix. `config/backref.yaml` says the same, line by line.
 */
export const BUILT_IN_REGISTRIES: Tree = {
  'docker.io': {
    default: true,
    aliases: ['index.docker.io', 'registry-1.docker.io'],
    library: true,
    upstream: {url: 'https://registry-1.docker.io'},
  },
  'ghcr.io': {upstream: {url: 'https://ghcr.io'}},
  'quay.io': {upstream: {url: 'https://quay.io'}},
  'gcr.io': {upstream: {url: 'https://gcr.io'}},
  'registry.k8s.io': {upstream: {url: 'https://registry.k8s.io'}},
  'mcr.microsoft.com': {upstream: {url: 'https://mcr.microsoft.com'}},
  'public.ecr.aws': {upstream: {url: 'https://public.ecr.aws'}},
};
