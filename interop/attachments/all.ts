import type {Attachment} from './attachment.ts';
import {cosignBundle, cosignTag} from './cosign.ts';
import {crane} from './crane.ts';
import {notation} from './notation.ts';
import {oras} from './oras.ts';
import {regctl} from './regctl.ts';

/** Every way to attach of the interop run, in the order of its table. */
export const ATTACHMENTS: readonly Attachment[] = [...oras, regctl, crane, cosignBundle, cosignTag, notation];
