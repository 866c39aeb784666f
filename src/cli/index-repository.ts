import {isRepositoryName} from '../oci/name.ts';
import type {ConfigOptions} from './configuration.ts';
import {runCommand} from './live-commands.ts';
import {misused} from './report.ts';

export interface IndexFlags extends ConfigOptions {
  /** As it was typed. */
  budget: string;
  json?: boolean;
}

interface Walk {
  tags: number;
  indexed: number;
  failed: number;
  manifests: number;
  referrers: number;
  requests: number;
  complete: boolean;
  stopped: string | undefined;
  failures: readonly {tag: string; reason: string}[];
}

/** The first component, where it names a registry. */
const REGISTRY = /^[^/]*[.:][^/]*\//;
const number = (value: number): string => value.toLocaleString('en-US');

const wording = {
  progress: ({tags, indexed, failed, referrers, requests}: Walk): [number, string] => [
    tags === 0 ? 0 : (indexed + failed) / tags,
    `${number(indexed + failed)}/${number(tags)} tags, ${number(referrers)} referrers, ${number(requests)} requests`,
  ],
  result({tags, indexed, manifests, referrers, requests, complete, stopped, failures, failed}: Walk): string {
    const more = failed - failures.length;
    return [
      `Indexed ${number(indexed)} of ${number(tags)} tags with ${number(requests)} requests: ${number(manifests)} manifests, ${number(referrers)} of them refer to another.`,
      ...(stopped === undefined
        ? []
        : [`Stopped: ${stopped}. Run it again to go on; what is here costs nothing.`]),
      ...failures.map(({tag, reason}) => `Failed: ${tag}: ${reason}`),
      ...(more > 0 ? [`Failed: ${number(more)} further tags`] : []),
      ...(complete ? ['Everything that the tags lead to is here.'] : []),
    ].join('\n');
  },
};

/**
 * `backref index`: walks the tags of an upstream's repository, and indexes every manifest with a subject.
 * @returns the exit code: 0 when all is here, or as much as the budget allowed; 1 when the upstream ended the walk or
 * tags failed; 2 when the command is misused or the configuration is faulty; 130 or 143 after a signal.
 */
export async function indexRepository(
  repository: string,
  {budget: text, ...flags}: IndexFlags,
): Promise<number> {
  const budget = Number(text);
  if (!/^[1-9]\d*$/.test(text) || !Number.isSafeInteger(budget)) {
    return misused(
      `--budget "${text}" is not a number of requests: write a whole number of at least 1.`,
      flags,
    );
  }
  if (!isRepositoryName(repository.replace(REGISTRY, ''))) {
    return misused(`"${repository}" is not a repository: write library/alpine or ghcr.io/org/app.`, flags);
  }
  return runCommand<Walk, Walk>(flags, {
    wording,
    run: (commands, _config, task) => commands.index({repository, budget, ...task}),
    exitCodeOf: ({failed, stopped, requests}) =>
      failed === 0 && (stopped === undefined || requests >= budget) ? 0 : 1,
  });
}
