// The camera, read in this browser: pictures stay here, readings go to the page a few times a second.
// Or, for the Record page, which sets `shots`, recorded: nothing is read, and pictures of what is asked for go there.

const EVERY = 200; // ms between reports to the page
const APART = 500; // ms between two pictures of a burst: as much as a hand needs to move a little
const COLORS = { left: "#0062b1", right: "#be4c00" }; // as handful/overlay.py
const INFERNO = [
  [0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164],
];
const MOMENT = 500; // ms until a canvas that only changes its settings is there again
const PATIENCE = 20_000; // ms until one is there again whose page has lost its connection
const SILENCE = 10_000; // ms after which a reader that does not answer is taken for dead
const cameras = {}; // of either kind, so that who goes from one to the other starts anew
let chosen; // the camera that the visitor picked: asked for again at each start

export default function (component) {
  const { parentElement, data, setStateValue, setTriggerValue } = component;
  const camera = (cameras[data.shots ? "recorder" : "reader"] ??= new Camera());
  const another = camera.settings?.asked !== data.asked;
  camera.settings = data;
  chosen ??= data.camera;
  camera.report = (name, value) => setStateValue(name, value);
  camera.hand = (burst) => setTriggerValue("burst", burst);
  camera.appear(parentElement);
  if (another) camera.record();
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
    this.choice.onchange = () => {
      chosen = this.choice.value;
      this.start();
    };
    this.button.disabled = Boolean(this.current && !this.stream); // while a camera opens; and until this code was there
    if (!this.stream) return;
    this.button.textContent = "Stop";
    if (this.running) this.report("state", { running: true, camera: chosen });
    this.list();
  }

  async start() {
    this.stop();
    this.report("state", { running: false, starting: true }); // what was amiss is told no longer
    if (this.busy && performance.now() - this.asked > SILENCE) this.dismiss();
    const current = (this.current = {}); // whoever stops, leaves, starts anew or loses the camera ends this one
    const over = () => this.current !== current;
    this.say("Opening the camera …");
    this.button.disabled = true;
    try {
      const stream = await openCamera(chosen);
      if (over()) {
        end(stream); // allowed too late: nobody wants it any more
        return;
      }
      this.stream = this.video.srcObject = stream;
      stream.getVideoTracks()[0].onended = () => this.fail("lost");
      await this.video.play();
      if (over()) return;
      await this.list();
      if (over()) return;
      this.began = performance.now();
      this.paint(stream);
      this.button.disabled = false;
      this.button.textContent = "Stop";
      if (!this.settings.shots) {
        this.say("Loading the model, once …");
        await this.load();
      }
    } catch (error) {
      if (!over()) this.fail(problem(error));
    }
    if (over()) return;
    this.say("");
    this.running = true;
    this.report("state", { running: true, camera: chosen });
    if (this.settings.shots) {
      this.record();
      return;
    }
    this.timer = setInterval(() => this.send(), EVERY);
  }

  // Counts down, takes some pictures of what is asked for, and hands them over. The page then asks for something else.
  async record() {
    const { stream, settings } = this;
    const { asked, words, shots, wait } = settings;
    if (!stream || !shots) return;
    if (!asked) {
      this.stop();
      return;
    }
    const current = (this.burst = {}); // whoever stops, skips or starts anew ends this one
    const over = () => this.burst !== current || this.stream !== stream;
    this.say(words);
    for (let left = wait; left > 0; left--) {
      this.caption = [words, String(left)];
      await sleep(1000);
      if (over()) return;
    }
    const pictures = [];
    while (pictures.length < shots) {
      this.caption = [words, `${pictures.length + 1} of ${shots}: move it a little`];
      await sleep(APART);
      if (over()) return;
      pictures.push(await this.shoot());
    }
    if (over()) return;
    this.caption = ["Saving …", ""];
    this.hand({ asked, pictures });
  }

  // What the camera sees now, not mirrored: a JPEG in base64.
  async shoot() {
    const { videoWidth: width, videoHeight: height } = this.video;
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d").drawImage(this.video, 0, 0);
    const reader = new FileReader();
    reader.readAsDataURL(await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 }));
    await new Promise((resolve) => (reader.onload = resolve));
    return reader.result.split(",")[1];
  }

  stop(problem) {
    if (this.stream) end(this.stream);
    if (this.current) this.report("state", { running: false, ...problem });
    clearInterval(this.timer);
    this.running = false;
    this.current = this.stream = undefined;
    this.hands = [];
    this.readings = [];
    this.caption = undefined;
    this.button.disabled = false;
    this.button.textContent = "Start";
    this.say("");
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  fail(problem) {
    this.stop({ problem });
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

  // One worker serves all of a visit: the model is loaded once, also where the camera stops and starts meanwhile.
  load() {
    this.loading ??= this.hire().catch((error) => {
      this.loading = undefined; // the next start tries again
      throw error;
    });
    return this.loading;
  }

  async hire() {
    const { worker, model, runtime } = this.settings;
    const at = (path) => new URL(path, import.meta.url).href;
    const reader = new Worker(at(worker), { type: "module" });
    await new Promise((resolve, reject) => {
      const fail = (message) => {
        reader.terminate();
        reject(new DOMException(message, "NoRuntime"));
      };
      reader.onmessage = ({ data }) => (data.ready ? resolve() : fail(data.error));
      reader.onerror = ({ message }) => fail(message);
      reader.postMessage({ model: at(model), runtime: { ...runtime, places: runtime.places.map(at) } });
    });
    reader.onmessage = ({ data }) => this.told(data);
    reader.onerror = ({ message }) => this.told({ error: message });
    this.worker = reader;
  }

  // The next start hires another.
  dismiss() {
    this.worker?.terminate();
    this.worker = this.loading = undefined;
    this.busy = false;
  }

  // The newest frame, as soon as the reader is free; none is read twice.
  async next() {
    if (!this.fresh || this.busy || !this.worker) return;
    this.fresh = false;
    this.busy = true;
    const bitmap = await createImageBitmap(this.video).catch(() => (this.busy = false)); // the next frame will do
    if (!bitmap || !this.worker) return;
    this.asked = performance.now();
    this.worker.postMessage({ bitmap }, [bitmap]);
  }

  told({ reading, error }) {
    this.busy = false;
    if (error) {
      console.error(error);
      this.dismiss();
      if (this.stream) this.fail("runtime");
      return;
    }
    if (!this.stream || this.asked < this.began) return; // of a camera that was stopped meanwhile
    this.hands = reading.hands;
    const hands = reading.hands.map(({ box, crop, probabilities }) => ({
      box: box.map((x) => round(x, 1)),
      crop: crop.map((x) => round(x, 1)),
      probabilities: probabilities.map((p) => round(p, 5)),
    }));
    const { width, height, milliseconds, light } = reading;
    this.readings.push({ hands, width, height, milliseconds, light, seconds: (this.asked - this.began) / 1000 });
    this.next();
  }

  send() {
    if (this.readings.length) this.report("readings", this.readings.splice(0));
  }

  // As often as the camera has a new frame: a screen asks for more, and the reader needs the time.
  paint(stream) {
    if (this.stream !== stream) return;
    const { canvas, video } = this;
    const { videoWidth: width, videoHeight: height } = video;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    const { gradcam, sure, told = [] } = this.settings;
    // A camera at a phone's back shows what others see: that is no mirror.
    const mirror = this.settings.mirror && stream.getVideoTracks()[0].getSettings().facingMode !== "environment";
    context.setTransform(mirror ? -1 : 1, 0, 0, 1, mirror ? width : 0, 0);
    context.drawImage(video, 0, 0);
    const named = this.hands.map((hand) => ({ ...hand, ...toldOf(hand, told) }));
    const hands = named.filter(({ confidence }) => confidence >= sure);
    if (gradcam) for (const hand of hands) drawHeat(context, hand);
    context.resetTransform(); // text reads from left to right in a mirror too
    for (const hand of hands) drawBox(context, hand, mirror, width, height);
    if (this.caption) drawCaption(context, this.caption, width, height);
    video.requestVideoFrameCallback(() => this.paint(stream));
    if (this.settings.shots) return;
    this.fresh = true;
    this.next();
  }
}

// The camera of that id, where it is still there, else the browser's own choice.
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

function end(stream) {
  stream.getTracks().forEach((track) => track.stop());
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

function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

function round(value, digits) {
  return Number(value.toFixed(digits));
}

// What the page tells of a hand, calmly: that of those it tells which shares most with its box; nothing if none does.
function toldOf({ box: [x0, y0, x1, y1] }, told) {
  let most = 0;
  let best;
  for (const { box, ...hand } of told) {
    const width = Math.min(x1, box[2]) - Math.max(x0, box[0]);
    const height = Math.min(y1, box[3]) - Math.max(y0, box[1]);
    const shared = Math.max(width, 0) * Math.max(height, 0);
    if (shared > most) [most, best] = [shared, hand];
  }
  return best;
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

// Two lines below, large enough to be read from where a hand is shown.
function drawCaption(context, lines, width, height) {
  const size = Math.floor(Math.min(height, width) / 12);
  context.fillStyle = "rgb(0 0 0 / 60%)";
  context.fillRect(0, height - 3.2 * size, width, 3.2 * size);
  context.fillStyle = "white";
  context.textAlign = "center";
  context.textBaseline = "middle";
  lines.forEach((line, i) => {
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.fillText(line, width / 2, height - (2.3 - 1.4 * i) * size, width);
  });
  context.textAlign = "start";
}
