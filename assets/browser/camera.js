// The camera of the Live page: frames are predicted in this browser, and only predictions go to the server.
// And that of the Teach page, whose settings have a `burst_size`: it sends pictures instead, and predicts nothing.

const REPORT_INTERVAL_MS = 200;
const BURST_INTERVAL_MS = 500; // time for the hand to move a little between two pictures of a burst
const RERENDER_TIMEOUT_MS = 500; // a canvas whose settings change is back within this
const RECONNECT_TIMEOUT_MS = 20_000; // one whose page has lost its connection, within this
const WORKER_TIMEOUT_MS = 10_000; // a worker that is silent for longer is taken for dead
const cameras = {}; // "live" and "teach": each starts anew when the visitor changes from one to the other
let cameraId; // of the camera that the visitor selected

export default function (component) {
  const { parentElement, data, setStateValue, setTriggerValue } = component;
  const camera = (cameras[data.burst_size ? "teach" : "live"] ??= new Camera());
  const isNewPrompt = camera.settings?.prompt !== data.prompt;
  camera.settings = data;
  cameraId ??= data.camera_id;
  camera.report = (name, value) => setStateValue(name, value);
  camera.sendBurst = (burst) => setTriggerValue("burst", burst);
  camera.attach(parentElement);
  if (isNewPrompt) camera.record();
  const { href } = location;
  return () => {
    // A page that reconnects is rebuilt, canvas included: the camera goes on meanwhile.
    // It stops when the visitor has gone to another page.
    const stopIfDetached = () => camera.canvas.isConnected || camera.stop();
    setTimeout(() => location.href !== href && stopIfDetached(), RERENDER_TIMEOUT_MS);
    setTimeout(stopIfDetached, RECONNECT_TIMEOUT_MS);
  };
}

class Camera {
  constructor() {
    this.video = document.createElement("video");
    Object.assign(this.video, { muted: true, playsInline: true });
    this.hands = [];
    this.predictions = [];
  }

  attach(root) {
    if (this.canvas === root.querySelector("canvas")) return;
    this.canvas = root.querySelector("canvas");
    this.button = root.querySelector("button");
    this.select = root.querySelector("select");
    this.status = root.querySelector("[role=status]");
    this.button.onclick = () => (this.stream ? this.stop() : this.start());
    this.select.onchange = () => {
      cameraId = this.select.value;
      this.start();
    };
    // Disabled in the HTML until this code has loaded; and while a camera opens.
    this.button.disabled = Boolean(this.session && !this.stream);
    if (!this.stream) return;
    this.button.textContent = "Stop";
    if (this.running) this.report("state", { running: true, camera: cameraId });
    this.listCameras();
  }

  async start() {
    this.stop();
    this.report("state", { running: false, starting: true }); // clears an earlier problem
    if (this.busy && performance.now() - this.frameTime > WORKER_TIMEOUT_MS) this.stopWorker();
    const session = (this.session = {}); // replaced by whoever stops, leaves, restarts or loses the camera
    const isOver = () => this.session !== session;
    this.setStatus("Opening the camera …");
    this.button.disabled = true;
    try {
      const stream = await openCamera(cameraId);
      if (isOver()) {
        release(stream); // allowed too late
        return;
      }
      this.stream = this.video.srcObject = stream;
      stream.getVideoTracks()[0].onended = () => this.fail("lost");
      await this.video.play();
      if (isOver()) return;
      await this.listCameras();
      if (isOver()) return;
      this.startTime = performance.now();
      this.render(stream);
      this.button.disabled = false;
      this.button.textContent = "Stop";
      if (!this.settings.burst_size) {
        this.setStatus("Loading the model …");
        await this.loadModel();
      }
    } catch (error) {
      if (!isOver()) this.fail(problemOf(error));
    }
    if (isOver()) return;
    this.setStatus("");
    this.running = true;
    this.report("state", { running: true, camera: cameraId });
    if (this.settings.burst_size) {
      this.record();
      return;
    }
    this.timer = setInterval(() => this.reportPredictions(), REPORT_INTERVAL_MS);
  }

  // Count down, take a burst of pictures and send it. The page then sets the next prompt.
  async record() {
    const { stream } = this;
    const { prompt, instruction, burst_size: burstSize, countdown_s: countdown } = this.settings;
    if (!stream || !burstSize) return;
    if (!prompt) {
      this.stop();
      return;
    }
    const burst = (this.burst = { prompt, pictures: [] }); // replaced by whoever stops, skips or restarts
    const isOver = () => this.burst !== burst || this.stream !== stream;
    this.setStatus(instruction);
    for (let seconds = countdown; seconds > 0; seconds--) {
      this.caption = [instruction, String(seconds)];
      await sleep(1000);
      if (isOver()) return;
    }
    while (burst.pictures.length < burstSize) {
      this.caption = [instruction, `${burst.pictures.length + 1} of ${burstSize}: move your hand a little`];
      await sleep(BURST_INTERVAL_MS);
      if (isOver()) return;
      burst.pictures.push(await this.captureJpeg());
    }
    if (isOver()) return;
    this.caption = ["Saving …", ""];
    this.sendBurst(burst);
  }

  // The current frame, not mirrored: a JPEG in base64.
  async captureJpeg() {
    const { videoWidth: width, videoHeight: height } = this.video;
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d").drawImage(this.video, 0, 0);
    const reader = new FileReader();
    reader.readAsDataURL(await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 }));
    await new Promise((resolve) => (reader.onload = resolve));
    return reader.result.split(",")[1];
  }

  stop(problem) {
    if (this.stream) release(this.stream);
    if (this.session) this.report("state", { running: false, ...problem });
    clearInterval(this.timer);
    this.running = false;
    this.session = this.stream = undefined;
    this.hands = [];
    this.predictions = [];
    this.caption = undefined;
    this.button.disabled = false;
    this.button.textContent = "Start";
    this.setStatus("");
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  fail(problem) {
    this.stop({ problem });
  }

  setStatus(text) {
    this.status.textContent = text;
  }

  async listCameras() {
    const devices = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
    const options = devices.map(({ deviceId, label }, i) => new Option(label || `Camera ${i + 1}`, deviceId));
    this.select.replaceChildren(...options);
    this.select.value = this.stream.getVideoTracks()[0].getSettings().deviceId ?? "";
    this.select.hidden = devices.length < 2;
  }

  // One worker serves the whole visit: the model is loaded once, even if the camera stops and starts meanwhile.
  loadModel() {
    this.loading ??= this.startWorker().catch((error) => {
      this.loading = undefined; // the next start tries again
      throw error;
    });
    return this.loading;
  }

  async startWorker() {
    const { model, runtime, labels } = this.settings;
    const resolveUrl = (path) => new URL(path, import.meta.url).href;
    const worker = new Worker(resolveUrl(this.settings.worker), { type: "module" });
    await new Promise((resolve, reject) => {
      const fail = (message) => {
        worker.terminate();
        reject(new DOMException(message, "NoRuntime"));
      };
      worker.onmessage = ({ data }) => (data.ready ? resolve() : fail(data.error));
      worker.onerror = ({ message }) => fail(message);
      const urls = runtime.urls.map(resolveUrl);
      worker.postMessage({ model: resolveUrl(model), runtime: { ...runtime, urls }, labels });
    });
    worker.onmessage = ({ data }) => (data.error ? this.onWorkerError(data.error) : this.onPrediction(data.prediction));
    worker.onerror = ({ message }) => this.onWorkerError(message);
    this.worker = worker;
  }

  // The next start of the camera starts another.
  stopWorker() {
    this.worker?.terminate();
    this.worker = this.loading = undefined;
    this.busy = false;
  }

  // Predict the newest frame as soon as the worker is free, and none twice.
  async predictFrame() {
    if (!this.hasNewFrame || this.busy || !this.worker) return;
    this.hasNewFrame = false;
    this.busy = true;
    const bitmap = await createImageBitmap(this.video).catch(() => (this.busy = false)); // the next frame will do
    if (!bitmap || !this.worker) return;
    this.frameTime = performance.now();
    this.worker.postMessage({ bitmap }, [bitmap]);
  }

  onPrediction({ hands, width, height, milliseconds, brightness }) {
    this.busy = false;
    if (!this.stream || this.frameTime < this.startTime) return; // from before a stop
    this.hands = hands;
    this.predictions.push({
      hands: hands.map(({ box, crop, probabilities, finger_probabilities: fingerProbabilities }) => ({
        box: box.map((x) => round(x, 1)),
        crop: crop.map((x) => round(x, 1)),
        probabilities: probabilities.map((p) => round(p, 5)),
        finger_probabilities: fingerProbabilities.map((p) => round(p, 5)),
      })),
      width,
      height,
      milliseconds,
      brightness,
      seconds: (this.frameTime - this.startTime) / 1000,
    });
    this.predictFrame();
  }

  onWorkerError(message) {
    console.error(message);
    this.stopWorker();
    if (this.stream) this.fail("runtime");
  }

  reportPredictions() {
    if (this.predictions.length) this.report("predictions", this.predictions.splice(0));
  }

  // Once a camera frame: screens refresh more often, and the worker needs the time.
  render(stream) {
    if (this.stream !== stream) return;
    const { canvas, video } = this;
    const { videoWidth: width, videoHeight: height } = video;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    const { gradcam, colors, min_confidence: minConfidence, tracked = [] } = this.settings;
    // The camera on the back of a phone is not mirrored: it shows what others see.
    const mirror = this.settings.mirror && stream.getVideoTracks()[0].getSettings().facingMode !== "environment";
    context.setTransform(mirror ? -1 : 1, 0, 0, 1, mirror ? width : 0, 0);
    context.drawImage(video, 0, 0);
    const hands = this.hands
      .map((hand) => ({ ...hand, ...trackedLabel(hand, tracked) }))
      .filter(({ confidence }) => confidence >= minConfidence);
    if (gradcam) for (const hand of hands) drawHeatmap(context, hand, colors);
    context.resetTransform(); // text is never mirrored
    for (const hand of hands) drawBox(context, hand, colors.sides[hand.side], mirror, width, height);
    if (this.caption) drawCaption(context, this.caption, width, height);
    video.requestVideoFrameCallback(() => this.render(stream));
    if (this.settings.burst_size) return;
    this.hasNewFrame = true;
    this.predictFrame();
  }
}

// The camera of that id, or the browser's default if it is gone.
async function openCamera(id) {
  if (!navigator.mediaDevices) throw new DOMException("", "NotSecure");
  const video = { width: { ideal: 640 }, height: { ideal: 480 }, ...(id && { deviceId: { exact: id } }) };
  try {
    return await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    if (!id || error.name !== "OverconstrainedError") throw error;
    return openCamera();
  }
}

function release(stream) {
  stream.getTracks().forEach((track) => track.stop());
}

function problemOf({ name }) {
  return {
    NotFoundError: "missing",
    OverconstrainedError: "missing",
    NotAllowedError: "refused",
    NotReadableError: "busy",
    AbortError: "busy",
    NotSecure: "insecure",
    NoRuntime: "runtime",
  }[name] ?? "unknown";
}

function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

function round(value, digits) {
  return Number(value.toFixed(digits));
}

// Fingers, side and confidence of the tracked hand that overlaps most, which flicker less; {} if none overlaps.
function trackedLabel({ box: [x0, y0, x1, y1] }, tracked) {
  let maxOverlap = 0;
  let best = {};
  for (const { box, ...label } of tracked) {
    const width = Math.min(x1, box[2]) - Math.max(x0, box[0]);
    const height = Math.min(y1, box[3]) - Math.max(y0, box[1]);
    const overlap = Math.max(width, 0) * Math.max(height, 0);
    if (overlap > maxOverlap) [maxOverlap, best] = [overlap, label];
  }
  return best;
}

function drawHeatmap(context, { crop: [x0, y0, x1, y1], heatmap }, { colormap, max_alpha: maxAlpha }) {
  const { width, height, values } = heatmap;
  const pixels = new ImageData(width, height);
  values.forEach((value, i) => {
    const position = value * (colormap.length - 1);
    const low = colormap[Math.floor(position)];
    const high = colormap[Math.ceil(position)];
    for (let k = 0; k < 3; k++) pixels.data[4 * i + k] = low[k] + (high[k] - low[k]) * (position % 1);
    pixels.data[4 * i + 3] = 255 * maxAlpha * value;
  });
  const map = new OffscreenCanvas(width, height);
  map.getContext("2d").putImageData(pixels, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(map, x0, y0, x1 - x0, y1 - y0);
}

// As handful.overlay draws it.
function drawBox(context, { box: [x0, y0, x1, y1], fingers, side }, color, mirror, width, height) {
  const lineWidth = Math.max(1, Math.floor(Math.min(height, width) / 240));
  const fontSize = Math.max(12, Math.floor(Math.min(height, width) / 18));
  const left = Math.max(mirror ? width - x1 : x0, lineWidth / 2);
  const right = Math.min(mirror ? width - x0 : x1, width - lineWidth / 2);
  const top = Math.max(y0, lineWidth / 2);
  const bottom = Math.min(y1, height - lineWidth / 2);
  context.strokeStyle = context.fillStyle = color;
  context.lineWidth = lineWidth;
  context.strokeRect(left, top, right - left, bottom - top);
  const text = `${side} · ${fingers}`;
  const padding = Math.floor(fontSize / 3);
  context.font = `600 ${fontSize}px system-ui, sans-serif`;
  const textWidth = context.measureText(text).width + 2 * padding;
  const x = Math.max(Math.min(left, width - textWidth), 0);
  const y = Math.max(top - fontSize - 2 * padding, 0);
  context.fillRect(x, y, textWidth, fontSize + 2 * padding);
  context.fillStyle = "white";
  context.textBaseline = "middle";
  context.fillText(text, x + padding, y + padding + fontSize / 2);
}

// Two lines along the bottom, large enough to be read at arm's length and more.
function drawCaption(context, lines, width, height) {
  const fontSize = Math.floor(Math.min(height, width) / 12);
  context.fillStyle = "rgb(0 0 0 / 60%)";
  context.fillRect(0, height - 3.2 * fontSize, width, 3.2 * fontSize);
  context.fillStyle = "white";
  context.textAlign = "center";
  context.textBaseline = "middle";
  lines.forEach((line, i) => {
    context.font = `600 ${fontSize}px system-ui, sans-serif`;
    context.fillText(line, width / 2, height - (2.3 - 1.4 * i) * fontSize, width);
  });
  context.textAlign = "start";
}
