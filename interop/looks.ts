import {join} from 'node:path';
import {SOURCES, startBackref} from '../rig/backref.ts';
import {createGate, type Gate} from '../rig/gate.ts';
import {buildImage, type Image, pushImage} from '../rig/image.ts';
import type {Scope} from '../rig/scope.ts';
import type {Toolbox} from '../rig/tools.ts';
import {type Attachment, type Find, LOOKS, type Look} from './attachments/attachment.ts';
import {cleanEnvironment} from './clients/client.ts';
import {type Before, firstUpstream} from './part.ts';
import {type CaseOutcome, messageOf} from './report.ts';
import {slug} from './slug.ts';

/** backref's background requests begin at once, each after the response before it. */
const QUIET_MS = 500;

type BackrefSettings = Pick<Parameters<typeof startBackref>[1], 'folder' | 'prefetch'>;

/**
 * Attaches something directly to an image in the upstream and looks for it: there; through a backref with
 * default settings but short lifetimes; with the upstream stopped, through a new process on its cache after the image
 * was pulled through it; and with the upstream stopped, through backrefs through which only the image was pulled.
 */
export async function runLooks(parent: Scope, attachment: Attachment, before: Before): Promise<void> {
  const {tools} = before;
  const {url} = firstUpstream(before);
  const scope = await parent.child();
  const gate = await createGate(url);
  scope.defer(gate.stop);
  const image = buildImage(`team/${slug(attachment.name)}`, '1', 'oci');
  const looks = createLooks({scope, gate, image, attachment, before});
  const {host} = new URL(url);
  const pullThrough = async (proxy: string) => {
    await pull(scope, tools, proxy, image);
    await gate.quiet(QUIET_MS);
  };
  try {
    await pushImage(url, image);
    const find = await attachment.attach({scope, tools, host, image});
    await looks.look('directly', host, find);

    const first = {folder: join(scope.folder, 'first')};
    await looks.through(first, '1s', async (proxy) => {
      await looks.look('through backref', proxy, find);
      await pullThrough(proxy);
    });
    await looks.stopped(first, 'again, upstream stopped', find);

    const prefetching: [Look, BackrefSettings][] = [
      ['image pulled, stopped', {folder: join(scope.folder, 'manifests')}],
      ['the same with prefetch: all', {folder: join(scope.folder, 'all'), prefetch: 'all'}],
    ];
    for (const [name, settings] of prefetching) {
      await looks.through(settings, '1s', pullThrough);
      await looks.stopped(settings, name, find);
    }
  } catch (error) {
    looks.failRest(error);
  } finally {
    await scope.end();
  }
}

interface LooksParts {
  scope: Scope;
  gate: Gate;
  image: Image;
  attachment: Attachment;
  before: Before;
}

function createLooks({scope, gate, image, attachment, before}: LooksParts) {
  const {tools} = before;
  const {name: upstream} = firstUpstream(before);
  const pending = new Set<Look>(LOOKS);
  const done = (name: Look, outcome: Omit<CaseOutcome, 'case'>) => {
    pending.delete(name);
    before.done({case: name, ...outcome});
  };

  async function look(name: Look, host: string, find: Find): Promise<void> {
    const own = await scope.child();
    const began = Date.now();
    gate.take();
    const fault = await find({scope: own, tools, host, image}).then(() => undefined, messageOf);
    await own.end();
    const verdict = judge(attachment, upstream, name, fault);
    done(name, {...verdict, ms: Date.now() - began, asked: gate.take().length});
  }

  /** Runs `work` with a backref whose cache is the folder of the settings. */
  async function through(settings: BackrefSettings, ttl: string, work: (host: string) => Promise<void>) {
    const own = await scope.child();
    try {
      // While the upstream is stopped, retries would only take time.
      const options = {main: SOURCES, upstream: gate.url, headersTimeout: '1s', ttl, ...settings};
      await work((await startBackref(own, options)).host);
    } finally {
      await own.end();
    }
  }

  /** Looks through a new backref on the settings' folder while the upstream is stopped. */
  async function stopped(settings: BackrefSettings, name: Look, find: Find) {
    await gate.stop();
    await through(settings, '0s', (host) => look(name, host, find));
    await gate.start();
  }

  /** Reports the looks that were not reached as failed. */
  function failRest(error: unknown): void {
    for (const name of pending) done(name, {fault: messageOf(error), ms: 0, asked: 0});
  }

  return {look, through, stopped, failRest};
}

/** As for a deployment: all platforms, by tag. */
async function pull(scope: Scope, tools: Toolbox, host: string, {repository, tag}: Image): Promise<void> {
  const own = await scope.child();
  const command = ['pull', '--insecure', '--format', 'oci', `${host}/${repository}:${tag}`];
  await own.run(tools.path('crane'), [...command, join(own.folder, 'image')], {env: cleanEnvironment(own)});
  await own.end();
}

/** Finding nothing passes when nothing can be found, as long as the tool reports the right reason. */
function judge(
  {limits}: Attachment,
  upstream: string,
  look: Look,
  fault: string | undefined,
): Pick<CaseOutcome, 'fault' | 'note'> {
  const limit = limits.find((each) => each.look === look && (each.upstream ?? upstream) === upstream);
  if (!limit) return {fault};
  if (fault === undefined) return {fault: `found, though the table says "${limit.because}"`};
  if (limit.says && !limit.says.test(fault)) return {fault: `another error than expected: ${fault}`};
  return {fault: undefined, note: limit.because};
}
