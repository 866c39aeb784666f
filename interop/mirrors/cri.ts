import {connect as connectHttp2} from 'node:http2';
import {connect} from 'node:net';

/** A user's name and password, as the kubelet takes them from a pull secret, or from a credential provider. */
export interface PullSecret {
  user: string;
  secret: string;
}

/**
 * Pulls an image as the kubelet does: by the Container Runtime Interface, a gRPC service at the runtime's socket.
 * @throws Error with the runtime's message
 */
export async function pullByCri(socket: string, image: string, login: PullSecret | undefined): Promise<void> {
  // PullImageRequest: image = 1 (ImageSpec: image = 1), auth = 2 (AuthConfig: username = 1, password = 2).
  const spec = field(1, field(1, image));
  const auth = login ? field(2, Buffer.concat([field(1, login.user), field(2, login.secret)])) : '';
  const message = Buffer.concat([spec, Buffer.from(auth)]);
  const session = connectHttp2('http://localhost', {createConnection: () => connect(socket)});
  try {
    const stream = session.request({
      ':method': 'POST',
      ':path': '/runtime.v1.ImageService/PullImage',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    // gRPC over HTTP/2: each message has a flag for its compression and its length before it.
    const prefix = Buffer.alloc(5);
    prefix.writeUInt32BE(message.length, 1);
    stream.end(Buffer.concat([prefix, message]));
    const ended = new Promise<Record<string, unknown>>((resolve, reject) => {
      stream.once('error', reject);
      stream.on('response', (headers) => 'grpc-status' in headers && resolve(headers));
      stream.once('trailers', resolve);
    });
    stream.resume();
    const {'grpc-status': status, 'grpc-message': reason} = await ended;
    if (status !== '0') throw new Error(`PullImage failed: ${decodeURIComponent(String(reason))}`);
  } finally {
    session.destroy();
  }
}

/** A length-delimited field of a protocol buffer that is shorter than 128 bytes, or a message of them. */
function field(number: number, content: string | Buffer): Buffer {
  const bytes = Buffer.from(content as string);
  return Buffer.concat([Buffer.from([(number << 3) | 2, bytes.length]), bytes]);
}
