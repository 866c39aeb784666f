import {duration, mapping, path, scalar} from './values.ts';

/** It stands in headers, between quotes. */
const service = scalar(
  'must be a name of up to 128 letters, digits and . _ : / -, e.g. registry.example.com',
  (value) => (typeof value === 'string' && /^[\w.:/-]{1,128}$/.test(value) ? value : undefined),
);

const realm = scalar(
  'must be the URL of the token endpoint as clients reach it, e.g. https://registry.example.com/token',
  (value) => (typeof value === 'string' && isRealm(value) ? value : undefined),
);

function isRealm(text: string): boolean {
  const url = /^https?:\/\/[!-~]+$/.test(text) && !/["\\]/.test(text) ? URL.parse(text) : null;
  return url !== null && url.username === '' && url.hash === '' && url.search === '';
}

/** Who can log in with a password. */
export const userSettings = mapping({htpasswd: path.optional()}).prefault({});

/** The tokens that clients get for their credentials. */
export const tokenSettings = mapping({
  service: service.prefault('backref'),
  // Clients take a token without a lifetime to be valid for a minute.
  ttl: duration(60_000, 60 * 60_000).prefault('5m'),
  key: path.optional(),
  realm: realm.optional(),
}).prefault({});
