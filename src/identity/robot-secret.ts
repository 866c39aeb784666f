import {createHash, randomBytes} from 'node:crypto';
import {crc32} from 'node:zlib';

/** Tells people, and programs that look for leaked secrets, what it is. */
const PREFIX = 'backref_robot_';
const RANDOM_BYTES = 32;
/** Digits of base 62 that hold them, and those of a CRC-32. */
const RANDOM_LENGTH = 43;
const CHECKSUM_LENGTH = 6;
const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

/** `backref_robot_`, 256 random bits, and a checksum that finds typing errors without a look into the database. */
export function createRobotSecret(): string {
  const random = inBase62(BigInt(`0x${randomBytes(RANDOM_BYTES).toString('hex')}`), RANDOM_LENGTH);
  return `${PREFIX}${random}${checksumOf(random)}`;
}

/** Whether a text says that it is the secret of a robot. */
export const isRobotSecret = (text: string): boolean => text.startsWith(PREFIX);

/** Whether the checksum is right. @param text one for which `isRobotSecret` is true */
export function isWholeRobotSecret(text: string): boolean {
  const rest = text.slice(PREFIX.length);
  const random = rest.slice(0, RANDOM_LENGTH);
  return rest.length === RANDOM_LENGTH + CHECKSUM_LENGTH && rest.slice(RANDOM_LENGTH) === checksumOf(random);
}

/**
 * What is stored of a secret. A fast hash is enough: nobody can try 2^256 secrets, which is why passwords need slow
 * ones. The lookup by it takes as long for whatever is sent: no one can choose a secret by its hash.
 */
export const hashOfRobotSecret = (secret: string): string =>
  createHash('sha256').update(secret).digest('hex');

const checksumOf = (random: string): string => inBase62(BigInt(crc32(random)), CHECKSUM_LENGTH);

function inBase62(value: bigint, length: number): string {
  let text = '';
  for (let rest = value; text.length < length; rest /= 62n) text = `${DIGITS[Number(rest % 62n)]}${text}`;
  return text;
}
