import {containerd} from './containerd.ts';
import {crane, oras, regctl, skopeo} from './copiers.ts';
import {docker} from './docker.ts';
import type {LoginClient} from './login-client.ts';
import {podman} from './podman.ts';
import {cosign, notation} from './signing.ts';

/** Every client that logs in in the interop run, in the order of its table. */
export const LOGIN_CLIENTS: readonly LoginClient[] = [
  docker,
  containerd,
  podman,
  skopeo,
  crane,
  oras,
  regctl,
  cosign,
  notation,
];
