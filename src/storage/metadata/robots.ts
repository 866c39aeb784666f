/** A token that an operator made for a machine, without its secret. Times in milliseconds since the epoch. */
export interface RobotRecord {
  /** Unique among those that are not revoked. */
  readonly name: string;
  /** Never used again, unlike a name. */
  readonly id: string;
  /** The SHA-256 of the secret, in hexadecimal digits. */
  readonly secretHash: string;
  /** What it may do, and the patterns for the places where. */
  readonly may: readonly string[];
  readonly on: readonly string[];
  readonly createdAt: number;
  /** Undefined for one that does not expire. */
  readonly expiresAt: number | undefined;
  /** Undefined for one that was not used yet. */
  readonly usedAt: number | undefined;
}

export interface RobotReads {
  /** All of them, in the order of their names. */
  robots(): Promise<RobotRecord[]>;
}

export type RobotChange =
  | {readonly type: 'robot.put'; readonly robot: RobotRecord}
  | {readonly type: 'robot.delete'; readonly id: string}
  /** @param at never sets the time of the last use back */
  | {readonly type: 'robot.use'; readonly id: string; readonly at: number};
