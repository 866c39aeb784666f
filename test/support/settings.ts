import type {Environment} from '../../src/config/environment.ts';
import {ConfigError} from '../../src/config/fault.ts';
import {loadConfig} from '../../src/config/load.ts';

export interface SettingsInput {
  /** The text of the file of settings; without it there is none. */
  yaml?: string;
  env?: Environment;
  /** Further files by path. */
  files?: Record<string, string>;
}

/** Loads settings that stand in memory; no file of the disk is read. */
export const loadGiven = ({yaml, env = {}, files = {}}: SettingsInput) => {
  const all: Record<string, string> = {
    ...files,
    ...(yaml === undefined ? {} : {'config/backref.yaml': yaml}),
  };
  return loadConfig({
    env,
    readFile: async (path) => {
      const text = all[path];
      if (text === undefined) throw Object.assign(new Error(`no such file: ${path}`), {code: 'ENOENT'});
      return text;
    },
  });
};

/** The error that the settings are refused with. */
export async function refusal(given: SettingsInput): Promise<ConfigError> {
  try {
    await loadGiven(given);
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error('these settings were expected to be refused');
}

/** A file of settings with one registry, whose further settings are given as lines of `key: value`. */
export const oneRegistry = (...lines: string[]): string =>
  [
    'registries:',
    '  r.test:',
    '    upstream: {url: https://r.test}',
    ...lines.map((line) => `    ${line}`),
  ].join('\n');

/** A file of settings with one registry, whose upstream's settings are given as lines of `key: value`. */
export const oneUpstream = (...lines: string[]): string =>
  ['registries:', '  r.test:', '    upstream:', ...lines.map((line) => `      ${line}`)].join('\n');
