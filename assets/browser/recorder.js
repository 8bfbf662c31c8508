// The camera of the Teach page: it counts down, takes bursts of pictures and sends them.

import { isRearCamera, listCameras, openCamera, problemOf, releaseCamera, stopWhenGone } from "./camera.js";

const BURST_INTERVAL_MS = 500; // time for the hand to move a little between two pictures of a burst
let recorder;

export default function ({ parentElement, data, setStateValue, setTriggerValue }) {
  recorder ??= new Recorder();
  const isNewPrompt = recorder.settings?.prompt !== data.prompt;
  recorder.settings = data;
  recorder.report = (value) => setStateValue("state", value);
  recorder.sendBurst = (burst) => setTriggerValue("burst", burst);
  recorder.attach(parentElement);
  if (isNewPrompt) recorder.record();
  return () => stopWhenGone(() => recorder.canvas, () => recorder.stop());
}

class Recorder {
  constructor() {
    this.video = document.createElement("video");
    Object.assign(this.video, { muted: true, playsInline: true });
  }

  attach(root) {
    if (this.canvas === root.querySelector("canvas")) return;
    this.canvas = root.querySelector("canvas");
    this.button = root.querySelector("button");
    this.select = root.querySelector("select");
    this.status = root.querySelector("[role=status]");
    this.button.onclick = () => (this.stream ? this.stop() : this.start());
    this.select.onchange = () => {
      this.cameraId = this.select.value;
      this.start();
    };
    // Disabled in the HTML until this code has loaded; and while a camera opens.
    this.button.disabled = Boolean(this.session && !this.stream);
    if (!this.stream) return;
    this.button.textContent = "Stop";
    if (this.running) this.report({ running: true });
    listCameras(this.select, this.stream);
  }

  async start() {
    this.stop();
    this.report({ running: false, starting: true }); // clears an earlier problem
    const session = (this.session = {}); // replaced by whoever stops, leaves, restarts or loses the camera
    const isOver = () => this.session !== session;
    this.status.textContent = "Opening the camera …";
    this.button.disabled = true;
    try {
      const stream = await openCamera(this.cameraId);
      if (isOver()) {
        releaseCamera(stream); // allowed too late
        return;
      }
      this.stream = this.video.srcObject = stream;
      stream.getVideoTracks()[0].onended = () => this.stop({ problem: "lost" });
      await this.video.play();
      if (isOver()) return;
      await listCameras(this.select, stream);
      if (isOver()) return;
    } catch (error) {
      if (!isOver()) this.stop({ problem: problemOf(error) });
      return;
    }
    this.render(this.stream);
    this.button.disabled = false;
    this.button.textContent = "Stop";
    this.status.textContent = "";
    this.running = true;
    this.report({ running: true });
    this.record();
  }

  stop(problem) {
    if (this.stream) releaseCamera(this.stream);
    if (this.session) this.report({ running: false, ...problem });
    this.running = false;
    this.session = this.stream = this.caption = undefined;
    this.button.disabled = false;
    this.button.textContent = "Start";
    this.status.textContent = "";
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  // Count down, take a burst of pictures and send it. The page then sets the next prompt.
  async record() {
    const { stream } = this;
    const { prompt, instruction, burst_size: burstSize, countdown_s: countdown } = this.settings;
    if (!stream) return;
    if (!prompt) {
      this.stop();
      return;
    }
    const burst = (this.burst = { prompt, pictures: [] }); // replaced by whoever stops, skips or restarts
    const isOver = () => this.burst !== burst || this.stream !== stream;
    this.status.textContent = instruction;
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

  render(stream) {
    if (this.stream !== stream) return;
    const { canvas, video } = this;
    const { videoWidth: width, videoHeight: height } = video;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    const mirror = !isRearCamera(stream);
    context.setTransform(mirror ? -1 : 1, 0, 0, 1, mirror ? width : 0, 0);
    context.drawImage(video, 0, 0);
    context.resetTransform(); // text is never mirrored
    if (this.caption) drawCaption(context, this.caption, width, height);
    video.requestVideoFrameCallback(() => this.render(stream));
  }
}

function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
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
