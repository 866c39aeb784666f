import {constants} from 'node:os';
import {getSystemErrorName} from 'node:util';
import test from 'ava';
import {errorCode, isRefusedByDisk} from '../src/error-code.ts';

/** An error as Node makes it of a failed system call. */
const systemError = (number: number): Error =>
  Object.assign(new Error(`${getSystemErrorName(-number)}, write`), {
    errno: -number,
    code: getSystemErrorName(-number),
  });

test('takes the code that Node gives', (t) => {
  t.is(errorCode(systemError(constants.errno.ENOENT)), 'ENOENT');
  t.is(errorCode(Object.assign(new Error('x'), {code: 'ERR_INVALID_ARG_TYPE'})), 'ERR_INVALID_ARG_TYPE');
  t.is(errorCode(new Error('x')), undefined);
  t.is(errorCode('ENOENT'), undefined);
});

for (const name of ['EDQUOT', 'ESTALE', 'EBADMSG'] as const) {
  test(`names ${name}, for which Node may have no name`, (t) => {
    t.is(errorCode(systemError(constants.errno[name])), name);
  });
}

test('names the errors of Linux that Node does not list', (t) => {
  const unnamed = (number: number) =>
    Object.assign(new Error('x'), {code: `Unknown system error -${number}`});
  t.is(errorCode(unnamed(117)), 'EUCLEAN');
  t.is(errorCode(unnamed(121)), 'EREMOTEIO');
  t.is(errorCode(unnamed(99_999)), 'Unknown system error -99999');
});

test('counts a used-up quota as a refusal by the disk', (t) => {
  t.true(isRefusedByDisk(systemError(constants.errno.EDQUOT)));
  t.true(isRefusedByDisk(systemError(constants.errno.ENOSPC)));
  t.false(isRefusedByDisk(systemError(constants.errno.EIO)));
});
