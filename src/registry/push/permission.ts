import type {Caller} from '../../caller.ts';
import type {Tag} from '../../oci/name.ts';
import {attachedTo} from '../../oci/referrers.ts';
import type {Access} from '../access.ts';
import type {Route} from '../namespace.ts';
import {type Denied, denial} from '../place-access.ts';
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
    const isAttached = edge && (tag === undefined || edge.subject.startsWith(attachedTo(tag) ?? '-'));
    if (isAttached && access.may(route, caller, 'attach', tag)) continue;
    const decision = access.repository(route, caller, 'push', tag);
    if (decision.verdict === 'denied') throw withHint(decision);
  }
}

const HINT =
  'Without that permission, only manifests with a subject are accepted, pushed by digest or by a tag that belongs to the subject';

const withHint = (denied: Denied): Error =>
  denial(denied.reason === undefined ? denied : {...denied, reason: `${denied.reason}. ${HINT}`});
