import {join} from 'node:path';
import {SOURCES, startBackref} from '../rig/backref.ts';
import {createGate} from '../rig/gate.ts';
import {buildImage, type Image, pushImage} from '../rig/image.ts';
import type {Scope} from '../rig/scope.ts';
import type {Toolbox} from '../rig/tools.ts';
import {type Attachment, type Find, LOOKS, type Look} from './attachments/attachment.ts';
import {cleanEnvironment} from './clients/client.ts';
import type {Before} from './part.ts';
import {messageOf, type Outcome} from './report.ts';
import {slug} from './slug.ts';

/** What backref fetches in the background begins at once and goes from answer to answer. */
const QUIET = 500;

type Settings = Pick<Parameters<typeof startBackref>[1], 'folder' | 'prefetch'>;

/**
 * Attaches something directly to an image of its own in the upstream and looks for it: there, through a backref with
 * default settings but short lifetimes, with the upstream stopped through a new process on its cache once the image
 * was pulled through it, and with the upstream stopped through backrefs that only the image was pulled through.
 */
export async function runLooks(parent: Scope, attachment: Attachment, before: Before): Promise<void> {
  const {tools, upstreams} = before;
  const [{name: upstream, url}] = upstreams;
  const scope = await parent.child();
  const gate = await createGate(url);
  scope.defer(gate.stop);
  const image = buildImage(`team/${slug(attachment.name)}`, '1', 'oci');

  const waiting = new Set<Look>(LOOKS);
  const done = (name: Look, outcome: Omit<Outcome, 'case'>) => {
    waiting.delete(name);
    before.done({case: name, ...outcome});
  };
  const look = async (name: Look, host: string, find: Find): Promise<void> => {
    const own = await scope.child();
    const began = Date.now();
    gate.take();
    const fault = await find({scope: own, tools, host, image}).then(() => undefined, messageOf);
    await own.end();
    const verdict = judge(attachment, upstream, name, fault);
    done(name, {...verdict, ms: Date.now() - began, asked: gate.take().length});
  };

  /** Runs `work` with a backref that keeps its cache in a folder of the settings. */
  const through = async (settings: Settings, ttl: string, work: (host: string) => Promise<void>) => {
    const own = await scope.child();
    try {
      // What is asked of a stopped upstream again is only waited for.
      const options = {main: SOURCES, upstream: gate.url, headersTimeout: '1s', ttl, ...settings};
      await work((await startBackref(own, options)).host);
    } finally {
      await own.end();
    }
  };

  const stopped = async (settings: Settings, name: Look, find: Find) => {
    await gate.stop();
    await through(settings, '0s', (host) => look(name, host, find));
    await gate.start();
  };

  try {
    await pushImage(url, image);
    const find = await attachment.attach({scope, tools, host: new URL(url).host, image});
    await look('directly', new URL(url).host, find);

    const first = {folder: join(scope.folder, 'first')};
    await through(first, '1s', async (host) => {
      await look('through backref', host, find);
      await pull(scope, tools, host, image);
      await gate.quiet(QUIET);
    });
    await stopped(first, 'again, upstream stopped', find);

    const prefetching: [Look, Settings][] = [
      ['image pulled, stopped', {folder: join(scope.folder, 'manifests')}],
      ['the same with prefetch: all', {folder: join(scope.folder, 'all'), prefetch: 'all'}],
    ];
    for (const [name, settings] of prefetching) {
      await through(settings, '1s', async (host) => {
        await pull(scope, tools, host, image);
        await gate.quiet(QUIET);
      });
      await stopped(settings, name, find);
    }
  } catch (error) {
    for (const name of waiting) done(name, {fault: messageOf(error), ms: 0, asked: 0});
  } finally {
    await scope.end();
  }
}

/** As a person does who deploys it: all platforms, by its tag. */
async function pull(scope: Scope, tools: Toolbox, host: string, {repository, tag}: Image): Promise<void> {
  const own = await scope.child();
  const command = ['pull', '--insecure', '--format', 'oci', `${host}/${repository}:${tag}`];
  await own.run(tools.path('crane'), [...command, join(own.folder, 'image')], {env: cleanEnvironment(own)});
  await own.end();
}

/** Finding nothing passes where nothing can be found, as long as the tool says so for the right reason. */
function judge(
  {limits}: Attachment,
  upstream: string,
  look: Look,
  fault: string | undefined,
): Pick<Outcome, 'fault' | 'note'> {
  const limit = limits.find((each) => each.look === look && (each.upstream ?? upstream) === upstream);
  if (!limit) return {fault};
  if (fault === undefined) return {fault: `found, though the table says "${limit.because}"`};
  if (limit.says && !limit.says.test(fault)) return {fault: `another error than expected: ${fault}`};
  return {fault: undefined, note: limit.because};
}
