import type {Scope} from '../rig/scope.ts';
import type {Tool, Toolbox} from '../rig/tools.ts';
import type {Chart} from './growth/chart.ts';
import type {Profile} from './profile/profile.ts';
import type {Target} from './targets.ts';

/** Names with versions, as the tables show them. */
export type Versions = Readonly<Record<string, string>>;

/** What the page says of one part. */
export interface PartReport {
  /** Tables, as Markdown. */
  text: string;
  chart?: Chart;
  targets: readonly Target[];
  /** Wrong behaviour of backref, as opposed to slow: each is a sentence. */
  faults: readonly string[];
}

/** A part of the bench that can run alone. Its results are kept until it runs again. */
export interface Part<Results> {
  /** As `--only` takes it, and as the page marks its section. */
  name: string;
  tools: readonly Tool[];
  /** @param say reports progress */
  measure(scope: Scope, tools: Toolbox, say: (line: string) => void): Promise<Results>;
  report(results: Results, versions: Versions): PartReport;
  /**
   * Shows what the server does under one of the loads that targets name.
   * @returns undefined where there is nothing to show of this load
   */
  profile?(load: string, scope: Scope, tools: Toolbox): Promise<Profile | undefined>;
}

/** A part whose results are not looked into. */
export type AnyPart = Part<unknown>;

/** The results that a part reports are those that it measured. */
export const part = <Results>(definition: Part<Results>): AnyPart => definition as unknown as AnyPart;
