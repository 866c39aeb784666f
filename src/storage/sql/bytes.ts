/** Drivers give bytes as they like; Koa would serve a Uint8Array as JSON. Nothing is copied. */
export const asBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
