// A worker that runs the server's model file in the browser: onnxruntime-web, CPU, one thread. More threads need a
// cross-origin isolated page, which other sites could not embed.
//
// In:  {model, runtime: {urls, files}, labels}   once, first
//      {head: id, weights: Map of heads}         for the frames that follow: a personal head; both are null for the model's own
//      {bitmap, heatmap: boolean, everything}    a frame, which comes back with its prediction; and with its candidates, if
//                                                there are heads for which everything is a hand
// Out: {progress: 0-1}, {ready: true}, {prediction, bitmap} or {error: text}

import { withHeads } from "./heads.js";
import { decodeProbabilities } from "./labels.js";

const DOWNLOAD_TIMEOUT_MS = 90_000;
const canvas = new OffscreenCanvas(1, 1);
const context = canvas.getContext("2d", { willReadFrequently: true });
let ort, model, labels;
let session, shippedSession, personalSession, candidateSession; // the first one is one of the next two
let personalHead; // id of the one in its session
let done = Promise.resolve(); // one message after the other

onmessage = ({ data }) => (done = done.then(() => handle(data)));

async function handle(data) {
  try {
    if (data.bitmap) postMessage({ prediction: await predict(data), bitmap: data.bitmap }, [data.bitmap]);
    else if ("head" in data) await changeHeads(data);
    else {
      await load(data);
      postMessage({ ready: true });
    }
  } catch (error) {
    postMessage({ error: String(error) });
  }
}

async function load({ runtime, ...rest }) {
  labels = rest.labels;
  // Runtime and model are downloaded at the same time; the runtime is the larger one.
  let progress = 0;
  const advance = (share) => postMessage({ progress: (progress += share) });
  const download = async (url, share, options) => {
    const bytes = await fetchBytes(url, options);
    advance(share);
    return bytes;
  };
  const [[script, binary], bytes] = await Promise.all([
    fetchRuntime(runtime, (url, options) => download(url, 0.3, options)),
    download(rest.model, 0.2),
  ]);
  model = new Uint8Array(bytes);
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  ort = await import(url);
  URL.revokeObjectURL(url);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = binary;
  session = shippedSession = await createSession(model);
}

// 3: errors. It would warn that the heads, which a personal head may replace, are no constants.
function createSession(bytes) {
  return ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], logSeverityLevel: 3 });
}

// To create a session takes time, in which no frame is predicted: those of the model and of the last personal head are kept,
// so that the visitor can turn it off and on while the camera runs.
async function changeHeads({ head, weights }) {
  if (head !== null && head !== personalHead) {
    const previous = personalSession;
    personalSession = await createSession(withHeads(model, weights));
    personalHead = head;
    await previous?.release();
  }
  session = head === null ? shippedSession : personalSession;
}

// The first URL that has all files wins. Any of them must serve exactly the pinned bytes.
async function fetchRuntime({ urls, files }, download) {
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

async function fetchBytes(url, options) {
  const response = await fetch(url, { ...options, signal: AbortSignal.timeout(DOWNLOAD_TIMEOUT_MS) });
  if (!response.ok) throw new Error(`${response.url}: ${response.status}`);
  return response.arrayBuffer();
}

async function predict({ bitmap, heatmap, everything }) {
  const start = performance.now();
  const { width, height } = bitmap;
  Object.assign(canvas, { width, height });
  context.drawImage(bitmap, 0, 0);
  const { rgb, brightness } = toRgb(context.getImageData(0, 0, width, height).data);
  const image = new ort.Tensor("uint8", rgb, [height, width, 3]);
  const names = ["boxes", "squares", "probabilities", "fingers", ...(heatmap ? ["gradcam"] : [])];
  const { boxes, squares, probabilities, fingers, gradcam } = await session.run({ image }, names);
  image.dispose();
  const hands = Array.from({ length: boxes.dims[0] }, (_, i) => {
    const scores = row(probabilities, i);
    const { label } = decodeProbabilities(scores, labels);
    return {
      box: row(boxes, i),
      crop: row(squares, i),
      probabilities: scores,
      finger_probabilities: row(fingers, i),
      ...(heatmap && { heatmap: heatmapOf(gradcam, i, label) }),
    };
  });
  hands.sort((a, b) => a.box[0] - b.box[0]);
  const prediction = { hands, width, height, milliseconds: performance.now() - start, brightness };
  if (everything) prediction.candidates = await findCandidates(rgb, width, height, everything);
  return prediction;
}

// All places that may be a hand, of a picture and of its mirror image: see candidates in handful/personal.py.
async function findCandidates(rgb, width, height, everything) {
  candidateSession ??= await createSession(withHeads(model, everything));
  const found = [];
  for (const pixels of [rgb, mirrored(rgb, width)]) {
    const image = new ort.Tensor("uint8", pixels, [height, width, 3]);
    const { scores, features } = await candidateSession.run({ image }, ["scores", "features"]);
    image.dispose();
    found.push({
      scores: Array.from(scores.data),
      features: Array.from(scores.data, (_, i) => row(features, i)),
    });
  }
  return found;
}

function mirrored(rgb, width) {
  const flipped = new Uint8Array(rgb.length);
  for (let line = 0; line < rgb.length; line += 3 * width)
    for (let from = line, to = line + 3 * (width - 1); from < line + 3 * width; from += 3, to -= 3)
      for (let channel = 0; channel < 3; channel++) flipped[to + channel] = rgb[from + channel];
  return flipped;
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

// The Grad-CAM map of one class, scaled to a maximum of 1.
function heatmapOf(maps, hand, label) {
  const [, labels, height, width] = maps.dims;
  const size = height * width;
  const start = (hand * labels + label) * size;
  const values = Array.from(maps.data.subarray(start, start + size));
  const max = Math.max(...values, 1e-12);
  return { width, height, values: values.map((value) => value / max) };
}
