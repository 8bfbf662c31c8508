// The camera, read in this browser: pictures stay here, readings go to the page a few times a second.

const EVERY = 200; // ms between reports to the page
const COLORS = { left: "#0062b1", right: "#be4c00" }; // as model/overlay.py
const INFERNO = [
  [0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164],
];
const MOMENT = 500; // ms until a canvas that only changes its settings is there again
const PATIENCE = 20_000; // ms until one is there again whose page has lost its connection
let camera;

export default function (component) {
  const { parentElement, data, setStateValue } = component;
  camera ??= new Camera();
  camera.settings = data;
  camera.report = (name, value) => setStateValue(name, value);
  camera.appear(parentElement);
  const here = location.href;
  return () => {
    // A page that comes back from a lost connection is built anew, the canvas too: the camera goes on meanwhile.
    // A visitor who went elsewhere is not looked at any longer.
    const leave = () => camera.canvas.isConnected || camera.stop();
    setTimeout(() => location.href !== here && leave(), MOMENT);
    setTimeout(leave, PATIENCE);
  };
}

class Camera {
  constructor() {
    this.video = document.createElement("video");
    Object.assign(this.video, { muted: true, playsInline: true });
    this.hands = [];
    this.readings = [];
  }

  appear(root) {
    if (this.canvas === root.querySelector("canvas")) return;
    this.canvas = root.querySelector("canvas");
    this.button = root.querySelector("button");
    this.choice = root.querySelector("select");
    this.status = root.querySelector("[role=status]");
    this.button.onclick = () => (this.stream ? this.stop() : this.start());
    this.choice.onchange = () => this.start(this.choice.value);
    if (!this.worker || !this.stream) return;
    this.button.textContent = "Stop";
    this.report("state", { running: true });
    this.list();
  }

  async start(device) {
    this.stop();
    this.say("Opening the camera …");
    this.button.disabled = true;
    try {
      if (!navigator.mediaDevices) throw new DOMException("", "NotSecure");
      const wish = { width: { ideal: 640 }, height: { ideal: 480 }, ...(device && { deviceId: { exact: device } }) };
      this.stream = await navigator.mediaDevices.getUserMedia({ video: wish, audio: false });
      this.video.srcObject = this.stream;
      await this.video.play();
      this.stream.getVideoTracks()[0].onended = () => this.fail("lost");
      await this.list();
      this.say("Loading the model, once …");
      await this.load();
    } catch (error) {
      this.fail(problem(error));
      return;
    } finally {
      this.button.disabled = false;
    }
    this.say("");
    this.button.textContent = "Stop";
    this.report("state", { running: true });
    this.began = performance.now();
    this.paint();
    this.next();
    this.timer = setInterval(() => this.send(), EVERY);
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    if (this.stream) this.report("state", { running: false });
    clearInterval(this.timer);
    this.stream = undefined;
    this.hands = [];
    this.readings = [];
    this.button.textContent = "Start";
    this.say("");
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  fail(name) {
    this.stop();
    this.report("state", { running: false, problem: name });
  }

  say(text) {
    this.status.textContent = text;
  }

  async list() {
    const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
    const options = cameras.map(({ deviceId, label }, i) => new Option(label || `Camera ${i + 1}`, deviceId));
    this.choice.replaceChildren(...options);
    this.choice.value = this.stream.getVideoTracks()[0].getSettings().deviceId ?? "";
    this.choice.hidden = cameras.length < 2;
  }

  // One worker serves all of a visit: the model is loaded once.
  async load() {
    if (this.worker) return;
    const { worker, model, runtime } = this.settings;
    const at = (path) => new URL(path, base()).href;
    const reader = new Worker(at(worker), { type: "module" });
    await new Promise((resolve, reject) => {
      reader.onmessage = ({ data }) => (data.ready ? resolve() : reject(new DOMException(data.error, "NoRuntime")));
      reader.onerror = ({ message }) => reject(new DOMException(message, "NoRuntime"));
      reader.postMessage({ model: at(model), runtime: { ...runtime, places: runtime.places.map(at) } });
    });
    reader.onmessage = ({ data }) => this.told(data);
    this.worker = reader;
  }

  // The newest frame, each time the reader is free.
  async next() {
    if (!this.stream) return;
    const bitmap = await createImageBitmap(this.video);
    this.asked = performance.now();
    this.worker.postMessage({ bitmap }, [bitmap]);
  }

  told({ reading, error }) {
    if (!this.stream) return;
    if (error) {
      console.error(error);
      this.fail("runtime");
      return;
    }
    this.hands = reading.hands;
    const hands = reading.hands.map(({ box, crop, probabilities }) => ({
      box: box.map((x) => round(x, 1)),
      crop: crop.map((x) => round(x, 1)),
      probabilities: probabilities.map((p) => round(p, 5)),
    }));
    const { width, height, milliseconds, light } = reading;
    this.readings.push({ hands, width, height, milliseconds, light, seconds: (this.asked - this.began) / 1000 });
    // After the next picture is on the screen: reading must not starve it.
    requestAnimationFrame(() => this.next());
  }

  send() {
    if (this.readings.length) this.report("readings", this.readings.splice(0));
  }

  paint() {
    if (!this.stream) return;
    const { canvas, video } = this;
    const { videoWidth: width, videoHeight: height } = video;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    const { mirror, gradcam, sure } = this.settings;
    context.setTransform(mirror ? -1 : 1, 0, 0, 1, mirror ? width : 0, 0);
    context.drawImage(video, 0, 0);
    const hands = this.hands.filter(({ confidence }) => confidence >= sure);
    if (gradcam) for (const hand of hands) drawHeat(context, hand);
    context.resetTransform(); // text reads from left to right in a mirror too
    for (const hand of hands) drawBox(context, hand, mirror, width, height);
    requestAnimationFrame(() => this.paint());
  }
}

// The app may lie under a path of its host's: where its own scripts come from tells which.
function base() {
  return document.querySelector('script[src*="static/"]').src.replace(/static\/.*$/, "");
}

function problem({ name }) {
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

function round(value, digits) {
  return Number(value.toFixed(digits));
}

function drawHeat(context, { crop: [x0, y0, x1, y1], heat: { width, height, values } }) {
  const pixels = new ImageData(width, height);
  values.forEach((value, i) => {
    const place = value * (INFERNO.length - 1);
    const low = INFERNO[Math.floor(place)];
    const high = INFERNO[Math.ceil(place)];
    for (let k = 0; k < 3; k++) pixels.data[4 * i + k] = low[k] + (high[k] - low[k]) * (place % 1);
    pixels.data[4 * i + 3] = 255 * 0.7 * value;
  });
  const small = new OffscreenCanvas(width, height);
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, x0, y0, x1 - x0, y1 - y0);
}

function drawBox(context, { box: [x0, y0, x1, y1], fingers, side }, mirror, width, height) {
  const line = Math.max(1, Math.floor(Math.min(height, width) / 240));
  const size = Math.max(12, Math.floor(Math.min(height, width) / 18));
  const left = Math.max(mirror ? width - x1 : x0, line / 2);
  const right = Math.min(mirror ? width - x0 : x1, width - line / 2);
  const top = Math.max(y0, line / 2);
  context.strokeStyle = context.fillStyle = COLORS[side];
  context.lineWidth = line;
  context.strokeRect(left, top, right - left, Math.min(y1, height - line / 2) - top);
  const text = `${side} · ${fingers}`;
  const pad = Math.floor(size / 3);
  context.font = `600 ${size}px system-ui, sans-serif`;
  const wide = context.measureText(text).width + 2 * pad;
  const x = Math.max(Math.min(left, width - wide), 0);
  const y = Math.max(top - size - 2 * pad, 0);
  context.fillRect(x, y, wide, size + 2 * pad);
  context.fillStyle = "white";
  context.textBaseline = "middle";
  context.fillText(text, x + pad, y + pad + size / 2);
}
