/** What a command's answer is made of: lines of JSON, progress first, then a result or an error. */
export type Message = {progress: unknown} | {result: unknown} | {error: Failure};

export interface Failure {
  message: string;
  /** The server is being stopped: what was wished was not done whole. */
  stopped?: boolean;
}

export const NDJSON = 'application/x-ndjson';

export const lineOf = (message: Message): string => `${JSON.stringify(message)}\n`;

/** The messages of a stream of text, as its lines come. */
export async function* messagesOf(texts: AsyncIterable<string>): AsyncGenerator<Message> {
  let rest = '';
  for await (const text of texts) {
    const lines = `${rest}${text}`.split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) yield JSON.parse(line);
  }
}
