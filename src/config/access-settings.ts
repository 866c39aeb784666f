import * as z from 'zod';
import {parseCallerGlob} from '../caller-glob.ts';
import {parsePlaceGlob} from '../oci/image-glob.ts';
import {certificateSettings} from './certificate-settings.ts';
import {issuerSettings} from './issuer-settings.ts';
import {tokenSettings, userSettings} from './login-settings.ts';
import {choice, list, mapping, scalar} from './values.ts';

/** A pattern for names of callers. `accessChecks` knows which kinds of names there are. */
const callerGlob = scalar(
  'must be a name or a pattern for names, e.g. anonymous, user:alice, robot:* or group:dev',
  (value) => (typeof value === 'string' && parseCallerGlob(value) ? value : undefined),
);

const placeGlob = scalar(
  'must be registry/repository with an optional :tag, in which * stands for a path component and ** for any number of them, e.g. apps.local/team-*/**; ** alone is everything',
  (value) => (typeof value === 'string' && parsePlaceGlob(value) ? value : undefined),
);

const filled = <Item extends z.ZodType>(item: Item, what: string) =>
  list(item).min(1, {error: `is empty: name at least one ${what}`});

const rule = mapping({
  who: filled(callerGlob, 'caller'),
  where: filled(placeGlob, 'place'),
  // An empty list denies everything.
  may: list(choice('pull', 'push', 'delete', 'attach', 'admin')),
});

/** Who may do what. */
export const accessSettings = mapping({
  mode: choice('enforce', 'audit').prefault('enforce'),
  rules: list(rule)
    .min(1, {
      error:
        'is empty, and would deny everything: write at least one rule, or remove the key, so that anybody may pull',
    })
    .optional(),
  groups: z
    .record(z.string(), list(callerGlob), {error: 'must be a mapping of names of groups to their members'})
    .prefault({}),
  issuers: list(issuerSettings).prefault([]),
  certificates: list(certificateSettings).prefault([]),
  users: userSettings,
  tokens: tokenSettings,
}).prefault({});
