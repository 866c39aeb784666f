import {readdir} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import fc from 'fast-check';
import {digestOf} from '../../../src/oci/digest.ts';
import {OciError} from '../../../src/oci/errors.ts';
import type {UploadId} from '../../../src/oci/upload.ts';
import type {Chunk} from '../../../src/registry/push/push.ts';
import {begun, caller, chunkOf, createHosted, type Hosted, storedBytes} from './hosted.ts';

/** How a chunk declares its place and its length. */
type Declared =
  | 'nothing'
  | 'length'
  | 'place'
  | 'a gap'
  | 'an overlap'
  | 'too little'
  | 'too much'
  | 'disagreeing';

type UploadStep =
  | {do: 'append' | 'finish' | 'finish wrongly'; upload: number; pieces: Uint8Array[]; declared: Declared}
  | {do: 'break off'; upload: number; pieces: Uint8Array[]}
  | {do: 'state' | 'cancel' | 'ask for from elsewhere'; upload: number}
  | {do: 'restart'};

const UPLOADS = 2;
const upload = fc.nat(UPLOADS - 1);
const pieces = fc.array(fc.uint8Array({minLength: 1, maxLength: 3000}), {maxLength: 3});
const declared = fc.constantFrom<Declared>(
  'nothing',
  'length',
  'place',
  'a gap',
  'an overlap',
  'too little',
  'too much',
  'disagreeing',
);
const step: fc.Arbitrary<UploadStep> = fc.oneof(
  {weight: 6, arbitrary: fc.record({do: fc.constant('append' as const), upload, pieces, declared})},
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom('finish' as const, 'finish wrongly' as const),
      upload,
      pieces,
      declared,
    }),
  },
  {weight: 2, arbitrary: fc.record({do: fc.constant('break off' as const), upload, pieces})},
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom('state' as const, 'cancel' as const, 'ask for from elsewhere' as const),
      upload,
    }),
  },
  {weight: 1, arbitrary: fc.constant({do: 'restart' as const})},
);

/** What an upload should be: its bytes, or gone. */
interface UploadModel {
  id: UploadId;
  bytes: Buffer | undefined;
}

/** The chunk, the expected refusal, and the pieces that are expected to be stored. */
function declare(bytes: Buffer, given: readonly Uint8Array[], how: Declared) {
  const sum = given.reduce((total, piece) => total + piece.length, 0);
  const at = (start: number, length = sum) => ({range: {start, end: start + length - 1}});
  const chunk = (headers: Partial<Chunk>) => chunkOf(given, headers);
  const refused = (headers: Partial<Chunk>, code: string, status: number, taken: number) => ({
    chunk: chunk(headers),
    refusal: {code, status},
    taken: given.slice(0, taken),
  });
  const fine = (headers: Partial<Chunk>) => ({chunk: chunk(headers), refusal: undefined, taken: given});
  switch (how) {
    case 'length':
      return fine({length: sum});
    case 'place':
      return sum === 0 ? fine({length: 0}) : fine(at(bytes.length));
    case 'a gap':
      return refused(at(bytes.length + 1, sum + 1), 'BLOB_UPLOAD_INVALID', 416, 0);
    case 'an overlap':
      return bytes.length === 0
        ? fine({})
        : refused(at(bytes.length - 1, sum + 1), 'BLOB_UPLOAD_INVALID', 416, 0);
    case 'too little':
      return sum === 0 ? fine({}) : refused({length: sum - 1}, 'SIZE_INVALID', 400, given.length - 1);
    case 'too much':
      return refused({length: sum + 1}, 'SIZE_INVALID', 400, given.length);
    case 'disagreeing':
      return refused({length: sum, ...at(bytes.length, sum + 1)}, 'SIZE_INVALID', 400, 0);
    case 'nothing':
      return fine({});
  }
}

async function codeOf(work: Promise<unknown>): Promise<{code: string; status: number} | undefined> {
  try {
    await work;
    return undefined;
  } catch (error) {
    if (error instanceof OciError) return {code: error.code, status: error.status};
    throw error;
  }
}

const UNKNOWN = {code: 'BLOB_UPLOAD_UNKNOWN', status: 404};
const WRONG = {code: 'DIGEST_INVALID', status: 400};

async function* breaking(given: readonly Uint8Array[]): AsyncGenerator<Uint8Array, void> {
  for (const piece of given) yield Buffer.from(piece);
  throw new OciError('BLOB_UPLOAD_INVALID', {message: 'the client broke off'});
}

/** Applies one step to the registry and to the model, and compares the outcomes. */
async function take(
  t: ExecutionContext,
  hosted: Hosted,
  model: UploadModel,
  step: Exclude<UploadStep, {do: 'restart'}>,
) {
  const {push} = hosted;
  const route = hosted.route();
  const {id, bytes} = model;
  switch (step.do) {
    case 'state': {
      const outcome = await codeOf(push.state(route, id, caller));
      return t.deepEqual(outcome, bytes ? undefined : UNKNOWN);
    }
    case 'ask for from elsewhere':
      return t.deepEqual(await codeOf(push.state(hosted.route('other/app'), id, caller)), UNKNOWN);
    case 'cancel':
      t.deepEqual(await codeOf(push.cancel(route, id, caller)), bytes ? undefined : UNKNOWN);
      model.bytes = undefined;
      return;
    case 'break off': {
      const chunk = {length: undefined, range: undefined, bytes: breaking(step.pieces)};
      const outcome = await codeOf(push.append(route, id, chunk, caller));
      t.deepEqual(outcome, bytes ? {code: 'BLOB_UPLOAD_INVALID', status: 400} : UNKNOWN);
      model.bytes &&= Buffer.concat([model.bytes, ...step.pieces]);
      return;
    }
    default:
      return write(t, hosted, model, step);
  }
}

async function write(
  t: ExecutionContext,
  hosted: Hosted,
  model: UploadModel,
  {do: verb, pieces: given, declared: how}: Extract<UploadStep, {declared: Declared}>,
) {
  const {push} = hosted;
  const route = hosted.route();
  const {id, bytes = Buffer.alloc(0)} = model;
  const {chunk, refusal, taken} = declare(bytes, given, how);
  const whole = Buffer.concat([bytes, ...taken]);
  const digest = digestOf(verb === 'finish' ? whole : Buffer.concat([whole, Buffer.from('!')]));
  const work =
    verb === 'append' ? push.append(route, id, chunk, caller) : push.finish(route, id, digest, chunk, caller);
  const outcome = await codeOf(work);
  if (!model.bytes) return t.deepEqual(outcome, UNKNOWN);
  t.deepEqual(outcome, refusal ?? (verb === 'finish wrongly' ? WRONG : undefined));
  model.bytes = refusal || verb === 'append' ? whole : undefined;
  if (verb === 'finish' && !refusal) t.deepEqual(await storedBytes(hosted, digest), whole);
}

test('uploads follow their model, in whatever order requests arrive', async (t) => {
  let hosted = await createHosted(t);
  await fc.assert(
    fc.asyncProperty(fc.array(step, {maxLength: 20}), async (steps) => {
      const models: UploadModel[] = [];
      for (let index = 0; index < UPLOADS; index++) {
        models.push({id: await begun(hosted, hosted.route()), bytes: Buffer.alloc(0)});
      }
      for (const step of steps) {
        if (step.do === 'restart') hosted = await hosted.restart();
        else await take(t, hosted, models[step.upload] as UploadModel, step);
        for (const {id, bytes} of models) {
          if (!bytes) continue;
          t.is((await hosted.push.state(hosted.route(), id, caller)).offset, bytes.length);
        }
      }
      for (const {id, bytes} of models) if (bytes) await hosted.push.cancel(hosted.route(), id, caller);
      t.deepEqual(await readdir(join(hosted.folder, 'spool')).catch(() => []), []);
      t.deepEqual(await hosted.metadata.idleUploads(Number.MAX_SAFE_INTEGER, 10), []);
    }),
    {numRuns: 60},
  );
});
