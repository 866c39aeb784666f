import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import type {Scope} from '../../rig/scope.ts';

/** Makes Podman and Buildah store images in the scope's folder, and accept unsigned images. */
export async function containerStorage(scope: Scope): Promise<{options: string[]; policy: string[]}> {
  const policy = join(scope.folder, 'policy.json');
  await writeFile(policy, JSON.stringify({default: [{type: 'insecureAcceptAnything'}]}));
  const folders = ['--root', join(scope.folder, 'root'), '--runroot', join(scope.folder, 'run')];
  return {options: [...folders, '--storage-driver', 'vfs'], policy: ['--signature-policy', policy]};
}
