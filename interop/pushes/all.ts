import {buildah} from './buildah.ts';
import {crane} from './crane.ts';
import {docker} from './docker.ts';
import {oras} from './oras.ts';
import {podman} from './podman.ts';
import type {ToolPush} from './push.ts';
import {regctl} from './regctl.ts';
import {cosign, notation} from './signing.ts';
import {skopeo} from './skopeo.ts';

/** Every way to push of the interop run, in the order of its table. */
export const PUSHES: readonly ToolPush[] = [
  docker,
  skopeo,
  podman,
  buildah,
  ...oras,
  regctl,
  ...crane,
  ...cosign,
  notation,
];
