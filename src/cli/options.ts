/** Options that several commands have. */
export const CONFIG = [
  '-c, --config <file>',
  'the configuration file (default: $BACKREF_CONFIG, else ./config/backref.yaml)',
] as const;
export const JSON_STEPS = ['--json', 'write one line of JSON for each step and for the result'] as const;

/** Gathers the values of an option that may be repeated. */
export const collect = (value: string, earlier: readonly string[] = []): string[] => [...earlier, value];

/** Runs a command; its module is loaded only when it is called. */
export type RunCommand = (command: () => Promise<number>) => Promise<void>;
