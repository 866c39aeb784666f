import type {Caller} from '../../caller.ts';
import {OciError} from '../../oci/errors.ts';
import type {Tag} from '../../oci/name.ts';
import {attachedTo} from '../../oci/referrers.ts';
import type {Access} from '../access.ts';
import type {Route} from '../namespace.ts';
import {denial, grantIn} from '../place-access.ts';
import type {CheckedManifest} from './validate.ts';

/**
 * Who may only attach pushes nothing but manifests with a subject, by digest or by a tag that belongs to the subject. Who
 * may push needs that for each tag.
 * @param tags all that the push sets; none for a push by digest
 * @throws OciError DENIED
 */
export function requirePush(
  access: Pick<Access, 'may' | 'repository'>,
  route: Route,
  {edge}: Pick<CheckedManifest, 'edge'>,
  tags: readonly Tag[],
  caller: Caller,
): void {
  for (const tag of tags.length > 0 ? tags : [undefined]) {
    if (access.may(route, caller, 'push', tag)) continue;
    const isAttached = edge && (tag === undefined || edge.subject.startsWith(attachedTo(tag) ?? '-'));
    if (!isAttached) throw onlyAttaches(access, route, caller, tag);
    grantIn(access.repository(route, caller, 'attach', tag));
  }
}

/** What denies the push, and what may be pushed without it. */
function onlyAttaches(
  access: Pick<Access, 'repository'>,
  route: Route,
  caller: Caller,
  tag: Tag | undefined,
): Error {
  const decision = access.repository(route, caller, 'push', tag);
  if (decision.verdict !== 'denied') return new OciError('DENIED');
  if (decision.failure || decision.reason === undefined) return denial(decision);
  const message = `${decision.reason}. Without that permission, only manifests with a subject are accepted, pushed by digest or by the subject's fallback tag`;
  return new OciError('DENIED', {message});
}
