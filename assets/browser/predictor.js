// The two places that can run the model. Both take a frame and return its prediction:
// {hands: [{box, crop, probabilities, finger_probabilities, heatmap?}], width, height, milliseconds, brightness}. `personal`
// is the personal head to predict with, as personal.js has it, or null for the model's own. With `candidates`, the
// prediction has those that a head learns from, of the picture and of its mirror image: [{scores, features}, …].

import { everythingIsAHand } from "./heads.js";

const TIMEOUT_MS = 20_000; // a worker or a server that is silent for longer is taken for dead
const JPEG_QUALITY = 0.8;

export function canRunModel() {
  return isSecureContext && typeof WebAssembly === "object" && typeof OffscreenCanvas === "function";
}

let onDevice;

// The one of the whole visit: preload.js, Live and Teach share it.
export function devicePredictor(settings) {
  return (onDevice ??= new DevicePredictor(settings));
}

// In this browser: a worker with onnxruntime-web. It is started once, and again after it has died.
class DevicePredictor {
  isReady = false; // set once it has predicted a frame: the first takes longest
  progress = 0;
  onProgress = () => {}; // of the page that is open

  constructor(settings) {
    this.settings = settings;
  }

  load() {
    this.loading ??= this.startWorker().catch((error) => {
      this.stop(); // the next start tries again
      throw error;
    });
    return this.loading;
  }

  async startWorker() {
    const { model, runtime, labels } = this.settings;
    const resolveUrl = (path) => new URL(path, import.meta.url).href;
    const worker = (this.worker = new Worker(resolveUrl("worker.js"), { type: "module" }));
    await new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => {
        if (data.progress) this.onProgress((this.progress = data.progress));
        else if (data.ready) resolve();
        else reject(new Error(data.error));
      };
      worker.onerror = ({ message }) => reject(new Error(message));
      const urls = runtime.urls.map(resolveUrl);
      worker.postMessage({ model: resolveUrl(model), runtime: { ...runtime, urls }, labels });
    });
    worker.onmessage = ({ data }) => (data.error ? this.fail(data.error) : this.settle("resolve", data));
    worker.onerror = ({ message }) => this.fail(message);
    this.head = null; // id of the personal head that the worker predicts with
  }

  // The worker borrows the bitmap. One frame at a time.
  async predict(bitmap, { heatmap, personal = null, candidates }) {
    await this.load();
    while (this.pending) await this.pending.promise.catch(() => {}); // of a camera that was stopped meanwhile
    this.pending = deferred();
    const timer = setTimeout(() => this.fail("The worker does not answer."), TIMEOUT_MS);
    const { id: head, weights } = personal ?? { id: null, weights: null };
    if (head !== this.head) this.worker.postMessage({ head, weights });
    this.head = head;
    const everything = candidates && everythingIsAHand(this.settings.heads.shapes);
    this.worker.postMessage({ bitmap, heatmap, everything }, [bitmap]);
    return this.pending.promise.finally(() => clearTimeout(timer));
  }

  settle(how, value) {
    this.pending?.[how](value);
    this.pending = undefined;
  }

  fail(message) {
    console.error(message);
    this.stop();
    this.settle("reject", new DOMException(message, "NoRuntime"));
  }

  stop() {
    this.worker?.terminate();
    this.worker = this.loading = undefined;
    this.progress = 0;
  }
}

// On the server: each frame is posted as a JPEG, after the numbers of the personal head if there is one: see web/live.py.
// The server neither stores nor logs them.
export class ServerPredictor {
  isReady = true;

  constructor() {
    // Names this camera, so that the server can count cameras. (crypto.randomUUID needs HTTPS.)
    this.stream = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16)).join("");
  }

  async predict(bitmap, { heatmap, personal = null, candidates }) {
    const { width, height } = bitmap;
    this.canvas ??= new OffscreenCanvas(width, height);
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
    const jpeg = await this.canvas.convertToBlob({ type: "image/jpeg", quality: JPEG_QUALITY });
    const body = personal ? new Blob([...personal.weights.values(), jpeg], { type: "application/octet-stream" }) : jpeg;
    const url = new URL(`../api/${candidates ? "teach" : "live"}?stream=${this.stream}`, import.meta.url);
    if (heatmap) url.searchParams.set("heatmap", 1);
    if (personal) url.searchParams.set("personal", personal.head.model);
    let response;
    try {
      response = await fetch(url, { method: "POST", body, signal: AbortSignal.timeout(TIMEOUT_MS) });
    } catch (error) {
      throw new DOMException(String(error), "Offline");
    }
    if (response.status === 400) throw new DOMException((await response.json()).error, "BadHead");
    if (!response.ok) throw new DOMException(String(response.status), response.status === 503 ? "ServerBusy" : "Offline");
    return { prediction: await response.json(), bitmap };
  }
}

function deferred() {
  let settle;
  const promise = new Promise((resolve, reject) => (settle = { resolve, reject }));
  return { promise, ...settle };
}
