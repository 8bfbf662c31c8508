// The Live page: everything of a frame (picture, boxes, number, words, bars) is drawn here, at once, from one prediction.
// Who predicts is the only difference between the two ways to run it: see predictor.js.

import { Announcer } from "./announcer.js";
import { Bars } from "./bars.js";
import { grab, isRearCamera, listCameras, mount, openCamera, problemOf, releaseCamera, sizeWithin } from "./camera.js";
import { download } from "./download.js";
import { drawFrame } from "./draw.js";
import { History } from "./history.js";
import * as personal from "./personal.js";
import { showChip } from "./personal_chip.js";
import { ServerPredictor, canRunModel, devicePredictor } from "./predictor.js";
import { ShowMe } from "./show_me.js";
import { sleep } from "./sleep.js";
import { Tracker } from "./tracker.js";
import { hintFor, inWords } from "./words.js";

const FADE_AFTER_MS = 300; // without a prediction, the boxes of the last one fade …
const FADE_MS = 150; // … so fast; live frames go on without boxes
const STALLED_MS = 2000; // without a prediction, there is no number any more
const RETRY_MS = 2000; // after a server that is full or does not answer
const RATE_WINDOW_MS = 2000;
const ANNOUNCE_AFTER_MS = 500; // a screen reader hears a number that stays for so long
const REPORT_INTERVAL_MS = 10_000;
const CLEANUP_INTERVAL_MS = 60_000;
const STILL_S = 2.5; // of the preview, for who wants no motion: two fingers

let live;

export default function (component) {
  const { parentElement, data, setStateValue, setTriggerValue } = component;
  const shell = parentElement.querySelector(".live");
  live ??= new Live(shell, data);
  live.report = { settings: (value) => setStateValue("settings", value), predictions: (value) => setTriggerValue("report", value) };
  return mount(live, shell, data.settings);
}

class Live {
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.$ = (selector) => root.querySelector(selector);
    this.canvas = this.$("canvas");
    this.context = this.canvas.getContext("2d");
    this.video = document.createElement("video");
    Object.assign(this.video, { muted: true, playsInline: true, loop: true });
    this.predictors = { browser: devicePredictor(data), server: new ServerPredictor() };
    this.bars = new Bars(this.$(".bars"), data.labels);
    this.history = new History(this.$(".chart"));
    this.game = new ShowMe(this.$(".game"), {
      onStateChange: (state) => (this.$(".play").disabled = state !== "idle" || !this.tracker),
    });
    this.announcer = new Announcer();
    this.example = new URL("counting.mp4", import.meta.url).href;
    this.preview = this.$(".preview");
    this.preview.src = this.example;
    this.predictions = []; // not yet reported
    this.times = [];
    personal.connect(data.heads);
    showChip(this.$(".personal"));
    personal.subscribe(() => {
      this.apply({});
      this.skipRetry?.(); // without the head that the server refused
    });
    this.listen();
    // Streamlit adds marks to the browser's performance timeline at each run, and never clears it: 200 MB a day.
    setInterval(() => (performance.clearMarks(), performance.clearMeasures()), CLEANUP_INTERVAL_MS);
    setInterval(() => this.reportPredictions(), REPORT_INTERVAL_MS);
  }

  // Who predicts: what the visitor chose, else this device if it can.
  get read() {
    return this.settings.read ?? (canRunModel() && !this.hasFailedHere ? "browser" : "server");
  }

  get predictor() {
    return this.predictors[this.read];
  }

  get isMirrored() {
    return this.settings.mirror && !isRearCamera(this.stream);
  }

  listen() {
    this.$(".start").onclick = () => this.start();
    this.$(".example").onclick = () => this.start(this.example);
    this.$(".stop").onclick = () => this.stop();
    this.$(".camera").onchange = ({ target }) => {
      this.change({ camera: target.value });
      this.start();
    };
    for (const radio of this.root.querySelectorAll("[name=read]"))
      radio.onchange = () => {
        this.change({ read: radio.value });
        this.prepare();
        this.skipRetry?.();
      };
    this.$(".mirror").onchange = ({ target }) => this.change({ mirror: target.checked });
    this.$(".look").onchange = ({ target }) => this.change({ look: target.checked });
    this.$(".sure").oninput = ({ target }) => this.apply({ sure: Number(target.value) });
    this.$(".sure").onchange = ({ target }) => this.change({ sure: Number(target.value) });
    this.$(".snapshot").onclick = () => this.canvas.toBlob((blob) => download(blob, "handful.png"));
    this.$(".notice button").onclick = () => this.$("[value=browser]").click();
    this.$(".csv").onclick = () => download(new Blob([this.history.toCsv()], { type: "text/csv" }), "handful.csv");
    this.$(".play").onclick = () => this.game.start();
    this.$(".aloud").onchange = ({ target }) => (this.announcer.mode = target.value);
    this.$(".fullscreen").onclick = () =>
      document.fullscreenElement ? document.exitFullscreen() : this.root.requestFullscreen();
    this.$(".fullscreen").hidden = !document.fullscreenEnabled;
    document.addEventListener("keydown", (event) => this.onKey(event));
  }

  // Space starts and stops, M mirrors, H shows the heatmap; not while typing, nor where a key has another meaning.
  onKey(event) {
    const [target] = event.composedPath();
    if (!this.root.isConnected || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (target.matches?.("textarea, select, [contenteditable], input:not([type=checkbox], [type=radio], [type=range])")) return;
    const key = event.key.toLowerCase();
    if (key === "m") this.change({ mirror: !this.settings.mirror });
    else if (key === "h") this.change({ look: !this.settings.look });
    else if (key === " " && !target.matches?.("button, a, input, summary")) {
      event.preventDefault(); // it would scroll
      if (this.session) this.stop();
      else if (!this.$(".start").disabled) this.start();
    }
  }

  // Show the component with the settings of the page's address.
  appear(settings) {
    if (!this.session) this.apply(settings);
    this.$(".start").disabled = false; // in the HTML until this code has loaded
    if (!this.session) this.playPreview();
    this.prepare();
  }

  // Change settings, and keep them in the address.
  change(settings) {
    this.apply(settings);
    this.report.settings(this.settings);
  }

  apply(settings) {
    this.settings = { ...this.settings, ...settings };
    const { mirror, look, sure } = this.settings;
    this.$(`[value=${this.read}]`).checked = true;
    this.$(".mirror").checked = mirror;
    this.$(".look").checked = look;
    this.$(".sure").value = sure;
    this.$(".confidence output").textContent = `${sure}%`;
    const sent = personal.active() ? "Your video and personal head go to this server and are" : "Your video goes to this server frame by frame and is";
    this.$(".privacy").textContent =
      this.read === "browser"
        ? "Your video stays on this device."
        : `${this.hasFailedHere ? "The model cannot be loaded on this device. " : ""}${sent} not stored.`;
  }

  // Load the model, and run it once: the first run is slow. If the camera is on, its frames do that.
  async prepare() {
    const { predictor } = this;
    this.$(".loading").hidden = true;
    if (predictor.isReady) return;
    predictor.onProgress = (progress) => this.showProgress(progress);
    this.showProgress(predictor.progress);
    try {
      await predictor.load();
      if (this.session) return;
      const frame = (await grab(this.preview)) ?? (await createImageBitmap(new ImageData(640, 480)));
      await predictor.predict(frame, { heatmap: false, personal: personal.active() });
      this.finishLoading(predictor);
    } catch {
      this.$(".loading").hidden = true; // Start tries again, and shows the problem
      // Behind a firewall, the runtime cannot be fetched. Who has not chosen will start on the server, which the page says.
      this.hasFailedHere = true;
      this.apply({});
    }
  }

  finishLoading(predictor) {
    predictor.isReady = true;
    this.$(".loading").hidden = this.predictor.isReady;
  }

  showProgress(progress) {
    this.$(".loading").hidden = this.predictor.isReady; // the visitor may have chosen the server meanwhile
    this.$("progress").value = progress;
  }

  // Start the camera, or the video at `url`.
  async start(url) {
    this.stop();
    const session = (this.session = {}); // replaced by whoever stops, leaves, restarts or loses the camera
    const isOver = () => this.session !== session;
    this.root.dataset.state = "opening";
    this.$(".start").textContent = "Opening the camera …";
    this.$(".start").disabled = true;
    try {
      if (url) Object.assign(this.video, { srcObject: null, src: url });
      else {
        const stream = await openCamera(this.settings.camera);
        if (isOver()) {
          releaseCamera(stream); // allowed too late
          return;
        }
        this.stream = this.video.srcObject = stream;
        stream.getVideoTracks()[0].onended = () => this.stop("lost");
      }
      await this.video.play();
      if (!isOver() && this.stream) await listCameras(this.$(".camera"), this.stream);
    } catch (error) {
      if (!isOver()) this.stop(problemOf(error));
    }
    if (isOver()) return;
    const { videoWidth, videoHeight } = this.video;
    this.$(".picture").style.setProperty("--aspect", `${videoWidth} / ${videoHeight}`);
    this.root.dataset.state = "running";
    this.preview.pause();
    this.tracker = new Tracker(this.data.labels);
    this.shownTime = -Infinity;
    this.startTime = this.lastHandTime = this.lastFrameTime = performance.now();
    this.times = [];
    this.history.clear();
    this.$(".play").disabled = this.$(".csv").disabled = false;
    this.timer = setInterval(() => this.tick(), 100);
    this.onVideoFrame(session);
    this.run(session);
  }

  // End it, and say why, unless the visitor wanted it: `problem` is a key of the page's texts.
  stop(problem) {
    if (this.stream) releaseCamera(this.stream);
    clearInterval(this.timer);
    this.video.pause();
    this.session = this.stream = undefined;
    this.wake?.();
    this.tracker = undefined;
    this.game.stop();
    this.$(".play").disabled = true;
    this.forgetFrame();
    this.showNotice();
    this.reportPredictions();
    this.root.dataset.state = "idle";
    this.$(".camera").hidden = true;
    const { problems } = this.data;
    this.$(".problem").textContent = problem ? (problems[problem] ?? problems.unknown) : "";
    this.$(".use-picture").hidden = !problem;
    this.$(".start").textContent = problem ? "Try again" : "Start";
    this.$(".start").disabled = false;
    this.playPreview();
  }

  playPreview() {
    if (!this.root.isConnected) return;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) this.preview.currentTime = STILL_S;
    else this.preview.play().catch(() => {}); // a browser may forbid it
  }

  // Once a camera frame, whether or not it is predicted.
  onVideoFrame(session) {
    if (this.session !== session) return;
    this.lastFrameTime = performance.now();
    this.hasNewFrame = true;
    this.wake?.();
    this.tick();
    this.video.requestVideoFrameCallback(() => this.onVideoFrame(session));
  }

  // Predict and show the newest frame, over and over.
  async run(session) {
    const isOver = () => this.session !== session;
    while (!isOver()) {
      if (!this.hasNewFrame) {
        await new Promise((resolve) => (this.wake = resolve));
        continue;
      }
      this.hasNewFrame = false;
      const { predictor } = this;
      const time = performance.now();
      try {
        const bitmap = await grab(this.video);
        if (!bitmap) continue; // the next frame will do
        const options = { heatmap: this.settings.look, personal: personal.active() };
        const { prediction, bitmap: frame } = await predictor.predict(bitmap, options);
        if (isOver()) return;
        this.showNotice();
        this.finishLoading(predictor);
        this.showFrame(frame, prediction, time);
      } catch (error) {
        if (isOver()) return;
        await this.recover(error);
      }
    }
  }

  // A server may be there again in a moment; a model that does not run here will not.
  async recover({ name, message }) {
    const texts = { ServerBusy: "The server is at capacity.", Offline: "The server does not answer.", BadHead: message };
    const text = texts[name];
    if (!text) {
      console.error(message);
      this.stop("runtime");
      return;
    }
    this.showNotice(`${text} Trying again …`);
    await Promise.race([sleep(RETRY_MS), new Promise((resolve) => (this.skipRetry = resolve))]);
  }

  showNotice(text = "") {
    this.$(".notice").hidden = !text;
    this.$(".notice span").textContent = text;
  }

  // Show a frame and all that was predicted from it, in one go.
  showFrame(frame, prediction, time) {
    const seconds = time / 1000;
    const tracked = this.tracker.update(prediction, seconds);
    const hands = tracked.filter(({ confidence }) => confidence >= this.settings.sure / 100);
    this.shown?.frame.close();
    this.shown = { frame, hands };
    this.shownTime = performance.now();
    this.times = [...this.times.filter((one) => one > this.shownTime - RATE_WINDOW_MS), this.shownTime];
    if (tracked.length) this.lastHandTime = time;
    this.draw(frame, hands, 1);
    this.showHands(hands, tracked.length - hands.length);
    const rate = Math.round((1000 * (this.times.length - 1)) / (this.shownTime - this.times[0])) || 0;
    this.$(".rate").textContent = rate ? `${rate} fps · ${Math.round(prediction.milliseconds)} ms per frame` : "";
    this.$(".hint").textContent = hintFor(prediction, tracked, time - this.lastHandTime, this.data.labels);
    const total = totalOf(hands);
    this.history.push({ seconds, total, hands });
    this.game.update({ total, seconds });
    this.announcer.update({ total, seconds });
    if (this.read === "browser")
      this.predictions.push({ milliseconds: prediction.milliseconds, fingers: hands.map(({ fingers }) => fingers) });
    this.announce(total);
  }

  // The number, the words and the bars.
  showHands(hands, hidden) {
    this.root.classList.remove("stale");
    this.showTotal(totalOf(hands));
    this.$(".words").textContent = inWords(this.isMirrored ? hands.toReversed() : hands, hidden); // in the order seen
    this.bars.show(hands);
  }

  showTotal(total) {
    this.$(".total b").textContent = total ?? "–";
    this.$(".total").classList.toggle("none", total === null);
  }

  forgetFrame() {
    this.shown?.frame.close();
    this.shown = undefined;
    this.root.classList.remove("stale");
    this.showTotal(null);
    for (const selector of [".words", ".hint", ".rate"]) this.$(selector).textContent = "";
    this.bars.show([]);
  }

  // While no prediction comes: fade the boxes of the last one, then show live frames without any.
  tick() {
    const age = performance.now() - this.shownTime;
    if (age <= FADE_AFTER_MS) return;
    const opacity = 1 - (age - FADE_AFTER_MS) / FADE_MS;
    this.root.classList.toggle("stale", Boolean(this.shown));
    if (this.shown && opacity > 0) this.draw(this.shown.frame, this.shown.hands, opacity);
    else if (this.video.readyState >= 2) this.draw(this.video, [], 0);
    if (age <= STALLED_MS) return;
    if (this.shown) this.forgetFrame();
    const hasStopped = performance.now() - this.lastFrameTime > STALLED_MS;
    this.$(".words").textContent = hasStopped ? "Video has stopped. If it does not go on, press Stop, then Start." : "Waiting for the first number …";
    this.announce(null);
  }

  draw(frame, hands, opacity) {
    const [width, height] = sizeWithin(frame);
    const scale = Math.min(Math.ceil(devicePixelRatio), 2); // for sharp labels
    if (this.canvas.width !== scale * width || this.canvas.height !== scale * height)
      Object.assign(this.canvas, { width: scale * width, height: scale * height });
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
    drawFrame(this.context, frame, {
      width,
      height,
      hands,
      opacity,
      mirror: this.isMirrored,
      gradcam: this.settings.look,
      colors: this.data.colors,
    });
  }

  // For screen readers: a number that stays.
  announce(total) {
    if (total === this.total) return;
    this.total = total;
    clearTimeout(this.announcing);
    const text = total === null ? "" : `${total} finger${total === 1 ? "" : "s"}`;
    this.announcing = setTimeout(() => (this.$(".announcement").textContent = text), ANNOUNCE_AFTER_MS);
  }

  // Predictions made on this device are counted on the server: numbers only.
  reportPredictions() {
    if (this.predictions.length) this.report.predictions(this.predictions.splice(0));
  }
}

// The number of raised fingers, or null where there is no hand.
function totalOf(hands) {
  return hands.length ? hands.reduce((sum, { fingers }) => sum + fingers, 0) : null;
}
