import {getDomain} from 'tldts';

/**
 * May this token service be asked on behalf of this upstream? A registry that could name any realm could send our
 * credentials anywhere, so the realm's host must share the upstream's registrable domain (domains that strangers
 * share, such as `github.io`, count as public suffixes) or be listed. Addresses and `localhost` must be equal.
 * @param realmHosts the setting `upstream.realmHosts`: `host` or `host:port`.
 * @returns undefined when it may; else what is wrong and which setting allows it.
 */
export function refusedRealm(
  realm: URL,
  upstream: URL,
  {realmHosts, insecure}: {realmHosts: readonly string[]; insecure: boolean},
): string | undefined {
  if (realm.protocol !== 'https:' && !(realm.protocol === 'http:' && insecure)) {
    return `its token service ${realm.protocol}//${realm.host} is not https; only an upstream with "insecure: true" may use http`;
  }
  if (realm.hostname === upstream.hostname) return undefined;
  if (realmHosts.includes(realm.hostname) || realmHosts.includes(realm.host)) return undefined;
  const domain = getDomain(realm.hostname, {allowPrivateDomains: true});
  if (domain !== null && domain === getDomain(upstream.hostname, {allowPrivateDomains: true}))
    return undefined;
  return `its token service ${realm.host} is outside the upstream's domain; if it is meant, add "${realm.hostname}" to upstream.realmHosts`;
}
