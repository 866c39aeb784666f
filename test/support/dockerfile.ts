/** One instruction of a Dockerfile, continuation lines joined. */
export interface Instruction {
  name: string;
  text: string;
}

export interface Stage {
  /** The name given with `AS`, if any. */
  name: string | undefined;
  instructions: Instruction[];
}

/** Takes a Dockerfile of plain instructions: no heredocs, no build arguments. */
export function parseDockerfile(text: string): Stage[] {
  const stages: Stage[] = [];
  const lines = text.replace(/\\\n/g, ' ').split('\n');
  for (const line of lines.map((raw) => raw.trim())) {
    if (line === '' || line.startsWith('#')) continue;
    const [, name = '', rest = ''] = /^(\S+)\s+(.*)$/.exec(line) ?? [];
    if (name === 'FROM') stages.push({name: /\sAS\s+(\S+)$/i.exec(rest)?.[1], instructions: []});
    else stages.at(-1)?.instructions.push({name, text: rest});
  }
  return stages;
}

/** The texts of all instructions of one name. */
export const textsOf = (stage: Stage, name: string): string[] =>
  stage.instructions.filter((instruction) => instruction.name === name).map(({text}) => text);

/** The words of the last exec form (`["node", "main.js"]`) of an instruction; options before it are left out. */
export const execOf = (stage: Stage, name: string): string[] =>
  JSON.parse(/\[.*\]$/.exec(textsOf(stage, name).at(-1) ?? '')?.[0] ?? '[]');
