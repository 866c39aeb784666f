import type {ConfigOptions} from './configuration.ts';
import {humanSize} from './draw-tree.ts';
import {imagesOrFault} from './image-list.ts';
import {runCommand} from './live-commands.ts';
import {type CommandIo, count, misused, number, type ProgressPart} from './report.ts';

export interface WarmFlags extends ConfigOptions {
  file?: string;
  platform?: readonly string[];
  referrers?: boolean;
  json?: boolean;
}

interface Counts {
  images: number;
  finished: number;
  failed: number;
  bytes: number;
}

interface Progress extends Counts {
  done: number;
  running: readonly {image: string; done: number; bytes: number; size: number}[];
}

interface Result extends Counts {
  warmed: readonly {image: string; error?: string}[];
}

const wording = {
  progress: ({
    done,
    images,
    finished,
    failed,
    bytes,
    running,
  }: Progress): [number, string, ProgressPart[]] => [
    done,
    `${number(finished - failed)} of ${count(images, 'image')}, ${humanSize(bytes)}${failed > 0 ? `, ${number(failed)} failed` : ''}`,
    running.map(({image, size, ...part}) => ({
      done: part.done,
      text: `${humanSize(part.bytes)} of ${humanSize(size)}  ${image}`,
    })),
  ],
  result({images, failed, bytes, warmed}: Result): string {
    return [
      `${number(images - failed)} of ${count(images, 'image')} ${images - failed === 1 ? 'is' : 'are'} here, ${humanSize(bytes)}.`,
      ...warmed.flatMap(({image, error}) => (error === undefined ? [] : [`  ${image}: ${error}`])),
      ...(failed > 0
        ? ['Run the command again to fetch the rest. Content that is already stored is skipped.']
        : []),
    ].join('\n');
  },
};

/**
 * `backref warm`: fetches images before anybody pulls them.
 * @returns the exit code: 0 when every image is here; 1 when one failed, or the command did; 2 for wrong arguments or a
 * faulty configuration; 130 or 143 after a signal.
 */
export async function warm(
  names: readonly string[],
  {file, platform: platforms = [], referrers = false, ...flags}: WarmFlags,
  io: CommandIo,
): Promise<number> {
  const images = await imagesOrFault(names, {file, platforms}, io);
  if (typeof images === 'string') return misused(images, flags, io);
  return runCommand<Progress, Result>(flags, io, {
    wording,
    run: (commands, _config, task) => commands.warm({images, platforms, referrers, ...task}),
    exitCodeOf: ({failed}) => (failed > 0 ? 1 : 0),
  });
}
