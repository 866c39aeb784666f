import type {Client} from './client.ts';
import {containerd} from './containerd.ts';
import {copiers} from './copiers.ts';
import {docker} from './docker.ts';
import {podman} from './podman.ts';

/** Every client of the interop run, in the order of its table. */
export const CLIENTS: readonly Client[] = [docker, containerd, podman, ...copiers];
