import {arch} from 'node:os';
import type {Image, Platform} from '../../rig/image.ts';

/** The platform that an engine on this machine chooses. @throws Error when the image does not have it. */
export function hostPlatform(image: Image): Platform {
  const wanted = arch() === 'x64' ? 'amd64' : arch();
  const platform = image.platforms.find(({architecture}) => architecture === wanted);
  if (platform) return platform;
  throw new Error(`the image has no platform linux/${wanted}; run this on amd64 or arm64`);
}
