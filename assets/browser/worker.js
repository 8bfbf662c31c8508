// A worker that reads frames with the very file that the server reads with: onnxruntime-web, CPU, one thread.
//
// In:  {model, runtime: {places, files}}   once: where things lie
//      {bitmap}                            a frame; it is closed here
// Out: {ready: true}, {reading}, or {error} in words

const FINGERS = 6;
const LATE = 90_000; // ms until a file that does not come is given up
const canvas = new OffscreenCanvas(1, 1);
const context = canvas.getContext("2d", { willReadFrequently: true });
let ort, session;

onmessage = async ({ data }) => {
  try {
    if (data.bitmap) postMessage({ reading: await read(data.bitmap) });
    else {
      await load(data);
      postMessage({ ready: true });
    }
  } catch (error) {
    postMessage({ error: String(error) });
  }
};

// The runtime comes from the first place that has it; wherever that is, it must be the bytes that were pinned.
async function load({ model, runtime }) {
  const found = await firstOf(runtime.places.map((place) => () => fetchAll(place, runtime.files)));
  const [script, binary] = found;
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  ort = await import(url);
  URL.revokeObjectURL(url);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = binary;
  session = await ort.InferenceSession.create(await get(model), { executionProviders: ["wasm"] });
}

async function firstOf(ways) {
  for (const way of ways.slice(0, -1)) {
    try {
      return await way();
    } catch {
      // The next one, then.
    }
  }
  return ways.at(-1)();
}

async function fetchAll(place, files) {
  return Promise.all(Object.entries(files).map(([name, integrity]) => get(new URL(name, place), { integrity })));
}

async function get(url, options) {
  const response = await fetch(url, { ...options, signal: AbortSignal.timeout(LATE) });
  if (!response.ok) throw new Error(`${response.url}: ${response.status}`);
  return response.arrayBuffer();
}

async function read(bitmap) {
  const start = performance.now();
  const { width, height } = bitmap;
  Object.assign(canvas, { width, height });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const rgb = new Uint8Array(width * height * 3);
  let light = 0;
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    rgb[to] = rgba[from];
    rgb[to + 1] = rgba[from + 1];
    rgb[to + 2] = rgba[from + 2];
    light += rgba[from + 1];
  }
  const image = new ort.Tensor("uint8", rgb, [height, width, 3]);
  const { boxes, squares, probabilities, gradcam } = await session.run({ image });
  image.dispose();
  const hands = Array.from({ length: boxes.dims[0] }, (_, i) => {
    const own = row(probabilities, i);
    const [fingers, right] = told(own);
    return {
      box: row(boxes, i),
      crop: row(squares, i),
      probabilities: own,
      fingers,
      side: right ? "right" : "left",
      confidence: own[fingers + FINGERS * right],
      heat: heat(gradcam, i, fingers + FINGERS * right),
    };
  });
  hands.sort((a, b) => a.box[0] - b.box[0]);
  const milliseconds = performance.now() - start;
  return { hands, width, height, milliseconds, light: light / (width * height) };
}

function row(tensor, i) {
  const size = tensor.dims.slice(1).reduce((a, b) => a * b, 1);
  return Array.from(tensor.data.subarray(i * size, (i + 1) * size));
}

// As model.tell does: the likeliest count over both sides, then its side.
function told(probabilities) {
  const counts = Array.from({ length: FINGERS }, (_, n) => probabilities[n] + probabilities[n + FINGERS]);
  const fingers = counts.indexOf(Math.max(...counts));
  return [fingers, Number(probabilities[fingers + FINGERS] > probabilities[fingers])];
}

// The Grad-CAM map of one class, its largest value 1.
function heat(maps, hand, label) {
  const [, labels, height, width] = maps.dims;
  const size = height * width;
  const start = (hand * labels + label) * size;
  const values = Array.from(maps.data.subarray(start, start + size));
  const most = Math.max(...values, 1e-12);
  return { width, height, values: values.map((value) => value / most) };
}
