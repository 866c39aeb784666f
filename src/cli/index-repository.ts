import {isRepositoryName} from '../oci/name.ts';
import type {ConfigOptions} from './configuration.ts';
import {runCommand} from './live-commands.ts';
import {type CommandIo, misused, number} from './report.ts';

export interface IndexFlags extends ConfigOptions {
  /** A number of requests. */
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

/** The first component of a name when it is a registry. */
const REGISTRY = /^[^/]*[.:][^/]*\//;
const wording = {
  progress: ({tags, indexed, failed, referrers, requests}: Walk): [number, string] => [
    tags === 0 ? 0 : (indexed + failed) / tags,
    `${number(indexed + failed)}/${number(tags)} tags, ${number(referrers)} referrers, ${number(requests)} requests`,
  ],
  result({tags, indexed, manifests, referrers, requests, complete, stopped, failures, failed}: Walk): string {
    const more = failed - failures.length;
    return [
      `Indexed ${number(indexed)} of ${number(tags)} tags with ${number(requests)} requests: ${number(manifests)} manifests, ${number(referrers)} with a subject.`,
      ...(stopped === undefined
        ? []
        : [`Stopped: ${stopped}. Run the command again to continue; what is stored is not requested again.`]),
      ...failures.map(({tag, reason}) => `Failed: ${tag}: ${reason}`),
      ...(more > 0 ? [`Failed: ${number(more)} more tags`] : []),
      ...(complete ? ['Everything that the tags lead to is stored.'] : []),
    ].join('\n');
  },
};

/**
 * `backref index`: walks the tags of an upstream repository and indexes every manifest with a subject.
 * @returns the exit code: 0 when everything is stored, or as much as the budget allowed; 1 when the upstream ended the
 * walk or tags failed; 2 for wrong arguments or a faulty configuration; 130 or 143 after a signal.
 */
export async function indexRepository(
  repository: string,
  {budget: text, ...flags}: IndexFlags,
  io: CommandIo,
): Promise<number> {
  const budget = Number(text);
  if (!/^[1-9]\d*$/.test(text) || !Number.isSafeInteger(budget)) {
    return misused(
      `--budget "${text}" is not a number of requests: write a whole number of at least 1.`,
      flags,
      io,
    );
  }
  if (!isRepositoryName(repository.replace(REGISTRY, ''))) {
    return misused(
      `"${repository}" is not a repository: write library/alpine or ghcr.io/org/app.`,
      flags,
      io,
    );
  }
  return runCommand<Walk, Walk>(flags, io, {
    wording,
    run: (commands, _config, task) => commands.index({repository, budget, ...task}),
    exitCodeOf: ({failed, stopped, requests}) =>
      failed === 0 && (stopped === undefined || requests >= budget) ? 0 : 1,
  });
}
