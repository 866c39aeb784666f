import type {Caller} from '../../caller.ts';
import type {Tag} from '../../oci/name.ts';
import {attachedTo, type Edge} from '../../oci/referrers.ts';
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
    if (mayAttachAt(access, route, edge, tag, caller)) continue;
    const decision = access.repository(route, caller, 'push', tag);
    if (decision.verdict === 'denied') throw withHint(decision);
  }
}

/** Whether the caller may put an attachment at a tag that belongs to its subject, or at none. */
const mayAttachAt = (
  access: Pick<Access, 'may'>,
  route: Route,
  edge: Edge | undefined,
  tag: Tag | undefined,
  caller: Caller,
): boolean =>
  edge !== undefined &&
  (tag === undefined || edge.subject.startsWith(attachedTo(tag) ?? '-')) &&
  access.may(route, caller, 'attach', tag);

/**
 * Whether the caller may make room for an attachment by deleting another one of its subject: it may delete, or it may set
 * each tag that points there to something else.
 */
export const mayDisplace = (
  access: Pick<Access, 'may'>,
  route: Route,
  edge: Edge,
  tags: readonly Tag[],
  caller: Caller,
): boolean =>
  access.may(route, caller, 'delete') ||
  tags.every(
    (tag) => mayAttachAt(access, route, edge, tag, caller) || access.may(route, caller, 'push', tag),
  );

const HINT =
  'Without that permission, only manifests with a subject are accepted, pushed by digest or by a tag that belongs to the subject';

const withHint = (denied: Denied): Error =>
  denial(denied.reason === undefined ? denied : {...denied, reason: `${denied.reason}. ${HINT}`});
