// A worker that runs the server's model file in the browser: onnxruntime-web, CPU, one thread.
//
// In:  {model, runtime: {urls, files}, labels: {counts, sides}}   once, first
//      {bitmap}                                                   a frame; it is closed here
// Out: {ready: true}, {prediction} or {error: text}

const DOWNLOAD_TIMEOUT_MS = 90_000;
const canvas = new OffscreenCanvas(1, 1);
const context = canvas.getContext("2d", { willReadFrequently: true });
let ort, session, labels;

onmessage = async ({ data }) => {
  try {
    if (data.bitmap) postMessage({ prediction: await predict(data.bitmap) });
    else {
      await load(data);
      postMessage({ ready: true });
    }
  } catch (error) {
    postMessage({ error: String(error) });
  }
};

async function load({ model, runtime, ...rest }) {
  labels = rest.labels;
  const [script, binary] = await fetchRuntime(runtime);
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  ort = await import(url);
  URL.revokeObjectURL(url);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = binary;
  session = await ort.InferenceSession.create(await download(model), { executionProviders: ["wasm"] });
}

// The first URL that has all files wins. Any of them must serve exactly the pinned bytes.
async function fetchRuntime({ urls, files }) {
  let failure;
  for (const base of urls) {
    const downloads = Object.entries(files).map(([name, integrity]) => download(new URL(name, base), { integrity }));
    try {
      return await Promise.all(downloads);
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

async function download(url, options) {
  const response = await fetch(url, { ...options, signal: AbortSignal.timeout(DOWNLOAD_TIMEOUT_MS) });
  if (!response.ok) throw new Error(`${response.url}: ${response.status}`);
  return response.arrayBuffer();
}

async function predict(bitmap) {
  const start = performance.now();
  const { width, height } = bitmap;
  Object.assign(canvas, { width, height });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { rgb, brightness } = toRgb(context.getImageData(0, 0, width, height).data);
  const image = new ort.Tensor("uint8", rgb, [height, width, 3]);
  const { boxes, squares, probabilities, gradcam, fingers: fingerProbabilities } = await session.run({ image });
  image.dispose();
  const hands = Array.from({ length: boxes.dims[0] }, (_, i) => {
    const scores = row(probabilities, i);
    const { label, fingers, side } = decodeProbabilities(scores);
    return {
      box: row(boxes, i),
      crop: row(squares, i),
      probabilities: scores,
      finger_probabilities: row(fingerProbabilities, i),
      fingers,
      side,
      confidence: scores[label],
      heatmap: heatmap(gradcam, i, label),
    };
  });
  hands.sort((a, b) => a.box[0] - b.box[0]);
  return { hands, width, height, milliseconds: performance.now() - start, brightness };
}

// RGBA to RGB, and the mean of green as a measure of brightness.
function toRgb(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  let green = 0;
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    rgb[to] = rgba[from];
    rgb[to + 1] = rgba[from + 1];
    rgb[to + 2] = rgba[from + 2];
    green += rgba[from + 1];
  }
  return { rgb, brightness: green / (rgba.length / 4) };
}

function row(tensor, i) {
  const size = tensor.dims.slice(1).reduce((a, b) => a * b, 1);
  return Array.from(tensor.data.subarray(i * size, (i + 1) * size));
}

// As handful.labels.decode_probabilities: the most likely count, summed over the sides, then its side.
function decodeProbabilities(probabilities) {
  const { counts, sides } = labels;
  const bySide = sides.map((_, side) => probabilities.slice(side * counts.length, (side + 1) * counts.length));
  const count = argmax(counts.map((_, i) => bySide.reduce((sum, scores) => sum + scores[i], 0)));
  const side = argmax(bySide.map((scores) => scores[count]));
  return { label: side * counts.length + count, fingers: counts[count], side: sides[side] };
}

function argmax(values) {
  return values.indexOf(Math.max(...values));
}

// The Grad-CAM map of one class, scaled to a maximum of 1.
function heatmap(maps, hand, label) {
  const [, labels, height, width] = maps.dims;
  const size = height * width;
  const start = (hand * labels + label) * size;
  const values = Array.from(maps.data.subarray(start, start + size));
  const max = Math.max(...values, 1e-12);
  return { width, height, values: values.map((value) => value / max) };
}
