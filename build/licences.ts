import {readdir, readFile} from 'node:fs/promises';
import {join} from 'node:path';

/**
 * The licences of the packages that a bundle contains parts of, which their authors demand to go with every copy.
 * @param inputs the bundle's files, relative to the project
 * @throws Error for a package that says nothing about its licence
 */
export async function licencesOf(inputs: readonly string[], project: string): Promise<string> {
  const folders = [...new Set(inputs.flatMap((input) => PACKAGE.exec(input)?.[0] ?? []))].sort();
  const texts = await Promise.all(folders.map((folder) => licenceOf(join(project, folder))));
  return `dist/backref.cjs contains code of these packages.\n\n${[...new Set(texts)].join('\n\n')}\n`;
}

/** The folder of the innermost package that a file is in. */
const PACKAGE = /^.*node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/;
const LICENCE_FILE = /^(?:licen[cs]e|copying|notice)/i;

async function licenceOf(folder: string): Promise<string> {
  const {name, version, license, author} = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8'));
  const files = (await readdir(folder)).filter((file) => LICENCE_FILE.test(file)).sort();
  if (files.length === 0 && typeof license !== 'string')
    throw new Error(`${name} ${version} says nothing about its licence`);
  const by = typeof author === 'string' ? author : author?.name;
  const texts = await Promise.all(files.map((file) => readFile(join(folder, file), 'utf8')));
  const terms =
    texts.length > 0 ? texts : [by ? `Copyright ${by}` : 'Its package has no text of the licence.'];
  return [`${RULE}\n${name} ${version} (${license})\n${RULE}`, ...terms.map((text) => text.trim())].join(
    '\n\n',
  );
}

const RULE = '-'.repeat(80);
