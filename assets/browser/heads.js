// Other heads for a model file: onnxruntime-web takes none with a call, as onnxruntime does. They are written into the file.
// The numbers of an array follow its name: see read_heads in handful/personal.py.

const RAW_DATA = 0x4a; // the key of TensorProto's field 9: of bytes
const CERTAIN = 100; // a logit

// Return a copy of a model file's bytes with other weights, a Map of name to Float32Array. Throws an Error where the model
// has no array of that name and length.
export function withHeads(model, weights) {
  const bytes = new Uint8Array(model).slice();
  for (const [name, values] of weights) {
    const key = [...new TextEncoder().encode(name), RAW_DATA, ...toVarint(values.byteLength)];
    const start = indexOf(bytes, key);
    if (start < 0) throw new Error(`The model has no ${name} of ${values.length} numbers.`);
    bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), start + key.length);
  }
  return bytes;
}

// Heads for which everything is a hand with a certain count, in the shapes of a personal head: with them, the model returns
// all places that may be a hand. See candidates in handful/personal.py.
export function everythingIsAHand(shapes) {
  const weights = new Map(Object.entries(shapes).map(([name, shape]) => [name, new Float32Array(shape.reduce((a, b) => a * b))]));
  for (const name of ["classifier.head.bias", "classifier.presence.bias"]) weights.get(name)[0] = CERTAIN;
  return weights;
}

// Seven bits a byte, the lowest first; all but the last have the eighth bit set.
function toVarint(number) {
  return number < 128 ? [number] : [(number % 128) + 128, ...toVarint(Math.floor(number / 128))];
}

function indexOf(bytes, key) {
  let start = bytes.indexOf(key[0]);
  while (start >= 0 && !key.every((byte, i) => bytes[start + i] === byte)) start = bytes.indexOf(key[0], start + 1);
  return start;
}
