// The Teach page: it asks for poses, takes pictures of them, and learns from these; teach_view.js shows it. Pictures, and what
// was learned, are in this module: they stay while the visitor goes to other pages, and are gone with a reload.

import { grab, isRearCamera, listCameras, mount, openCamera, problemOf, releaseCamera } from "./camera.js";
import { download } from "./download.js";
import { HeadPanel } from "./head_panel.js";
import { fit } from "./learning.js";
import { use } from "./personal.js";
import { ServerPredictor, canRunModel, devicePredictor } from "./predictor.js";
import { Question } from "./question.js";
import { COUNTDOWN_S, MAX_SHOTS, Recording, SHOT_INTERVAL_MS, assess, filesOf, questionOf } from "./recording.js";
import { Review } from "./review.js";
import { sleep } from "./sleep.js";
import { TeachView } from "./teach_view.js";
import { hintFor } from "./words.js";
import { zip } from "./zip.js";

const CHECK_MS = 5000; // that the visitor waits for predictions; later ones come during the next prompt
const RETRY_MS = 2000; // after a server that is busy or does not answer
const JPEG_QUALITY = 0.92;

let teach;

export default function ({ parentElement, data, setStateValue, setTriggerValue }) {
  const shell = parentElement.querySelector(".teach");
  teach ??= new Teach(shell, data);
  teach.report = { settings: (value) => setStateValue("settings", value), goToLive: () => setTriggerValue("use", true) };
  return mount(teach, shell, data.settings);
}

class Teach {
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.$ = (selector) => root.querySelector(selector);
    this.video = this.$(".view");
    this.predictors = { browser: devicePredictor(data), server: new ServerPredictor() };
    this.recording = new Recording(data.labels);
    this.review = new Review(root, data, {
      onRemove: (shots) => this.change(() => this.recording.remove(shots)),
      onRedo: (prompt) => this.change(() => this.recording.redo(prompt)),
    });
    this.question = new Question(this.$(".question"), (...shot) => this.review.draw(...shot));
    this.view = new TeachView(root, this.review);
    new HeadPanel(this.$(".head"), data.heads);
    this.problem = "";
    this.listen();
  }

  // As on Live: what the visitor chose, else this device if it can.
  get read() {
    return this.settings.read ?? (canRunModel() && !this.hasFailedHere ? "browser" : "server");
  }

  get predictor() {
    return this.predictors[this.read];
  }

  listen() {
    this.$(".start").onclick = () => this.act();
    this.$(".other").onclick = () => this.action[3]?.();
    this.$(".stop").onclick = () => this.stop();
    this.$(".skip").onclick = () => this.skip();
    this.$(".camera").onchange = ({ target }) => {
      this.camera = target.value;
      this.start();
    };
    this.$(".hands").onchange = ({ target }) => this.change(() => (this.recording.hands = target.value));
    this.$(".burst").onchange = ({ target }) => this.change(() => (this.recording.burst = Number(target.value)));
    for (const radio of this.root.querySelectorAll("[name=read]"))
      radio.onchange = () => {
        this.settings.read = radio.value;
        this.report.settings(this.settings);
        this.render();
        this.prepare();
      };
    this.$(".save-zip").onclick = () => this.saveZip();
    this.$(".delete-all").onclick = () => this.deleteAll();
    this.$(".result").onclick = ({ target }) => target.matches(".save-head") && this.saveHead();
    document.addEventListener("keydown", (event) => this.onKey(event));
    addEventListener("beforeunload", (event) => this.recording.shots.length && !this.isSaved && event.preventDefault());
  }

  // Space starts and pauses, K keeps, R takes again.
  onKey(event) {
    const [target] = event.composedPath();
    if (!this.root.isConnected || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (this.$("dialog").open || target.matches?.("textarea, select, [contenteditable], input:not([type=checkbox], [type=radio])")) return;
    const key = event.key.toLowerCase();
    if (key === "k") this.question.answer(false);
    else if (key === "r") this.question.answer(true);
    else if (key === " " && !target.matches?.("button, a, input, summary")) {
      event.preventDefault(); // it would scroll
      if (this.session) this.stop();
      else if (!this.$(".start").disabled) this.act();
    }
  }

  appear(settings) {
    this.settings = { ...settings };
    this.render();
    this.prepare();
  }

  // Load the model, and run it once: the first run is slow.
  async prepare() {
    const { predictor } = this;
    this.$(".loading").hidden = true;
    if (this.read === "server" || this.isPrepared) return;
    predictor.onProgress = (progress) => this.showProgress(progress);
    this.showProgress(predictor.progress);
    try {
      await predictor.load();
      await predictor.predict(await createImageBitmap(new ImageData(640, 480)), { candidates: true });
      predictor.isReady = this.isPrepared = true;
    } catch {
      // Behind a firewall, the runtime cannot be fetched. Who has not chosen records on the server, which the page says.
      this.hasFailedHere = true;
      this.render();
    }
    this.$(".loading").hidden = true;
  }

  showProgress(progress) {
    this.$(".loading").hidden = this.predictor.isReady;
    this.$(".loading progress").value = progress;
  }

  // What the large button says and does, then what the small one below says and does.
  get action() {
    const { recording, result } = this;
    if (this.isLearning) return ["Learning …"];
    if (result?.figures.helped) return ["Use on Live", () => this.useOnLive(), "Record another round", () => this.addRound()];
    if (recording.isComplete && (result || this.cannotLearn)) return ["Record another round", () => this.addRound()];
    if (recording.isComplete) return ["Learn", () => this.learn()];
    if (this.problem && !this.cannotLearn) return ["Try again", () => this.start()];
    if (recording.shots.length) return ["Continue", () => this.start(), "Learn from what is there", () => this.learn()];
    return ["Start", () => this.start()];
  }

  act() {
    this.action[1]?.();
  }

  // Change what was recorded, or what is asked for: what was learned before is outdated.
  change(how) {
    how();
    this.result = this.cannotLearn = undefined;
    this.isSaved = false;
    this.problem = "";
    this.render();
  }

  addRound() {
    this.change(() => this.recording.rounds++);
    this.start();
  }

  deleteAll() {
    if (confirm(`Delete all ${this.recording.shots.length} pictures?`)) this.change(() => this.recording.clear());
  }

  // Recording

  async start() {
    this.stop();
    const session = (this.session = new AbortController()); // aborted by whoever pauses, leaves or loses the camera
    const { signal } = session;
    this.root.dataset.state = "opening";
    this.$(".start").textContent = "Opening the camera …";
    this.$(".start").disabled = true;
    try {
      const stream = await openCamera(this.camera);
      if (signal.aborted) {
        releaseCamera(stream); // allowed too late
        return;
      }
      this.stream = this.video.srcObject = stream;
      stream.getVideoTracks()[0].onended = () => this.stop("lost");
      await this.video.play();
      await listCameras(this.$(".camera"), stream);
      signal.throwIfAborted();
      this.lock = await navigator.wakeLock?.request("screen").catch(() => {}); // no finger touches the phone meanwhile
      signal.throwIfAborted();
    } catch (error) {
      if (!signal.aborted) this.stop(problemOf(error));
      return;
    }
    this.$(".picture").style.setProperty("--aspect", `${this.video.videoWidth} / ${this.video.videoHeight}`);
    this.video.classList.toggle("mirrored", !isRearCamera(this.stream));
    this.root.dataset.state = "running";
    this.isSaved = false;
    this.result = this.cannotLearn = undefined;
    this.run();
  }

  // Go through the prompts, until all are answered.
  async run() {
    const turn = (this.turn = new AbortController()); // aborted by Skip, too
    const signal = AbortSignal.any([turn.signal, this.session.signal]);
    try {
      while (this.recording.next) await this.take(this.recording.next, signal);
      this.stop();
    } catch (error) {
      if (error.name === "AbortError") return;
      console.error(error);
      this.stop("unknown");
    }
  }

  // Stop the camera, and say why, unless the visitor wanted it: `problem` is a key of the page's texts.
  stop(problem) {
    const { problems } = this.data;
    if (this.stream) releaseCamera(this.stream);
    this.session?.abort();
    this.lock?.release();
    this.session = this.stream = this.lock = this.prompt = undefined;
    this.view.hideOverlay();
    this.$(".hint").textContent = "";
    this.isCounting = false;
    this.$(".camera").hidden = true;
    this.root.dataset.state = "idle";
    this.problem = problem ? (problems[problem] ?? problems.unknown) : "";
    this.render();
  }

  skip() {
    if (!this.prompt) return;
    this.recording.answered.add(this.prompt.key);
    this.turn.abort();
    this.run();
  }

  // Ask for a pose, count down, take pictures of it, and ask about those that are not as expected.
  async take(prompt, signal) {
    const { recording } = this;
    if (recording.shots.length + recording.shotsOf(prompt) > MAX_SHOTS) {
      this.stop();
      this.problem = `${MAX_SHOTS} pictures are enough. Learn from them, or delete some.`;
      this.render();
      return;
    }
    const isFirst = this.prompt?.key !== prompt.key;
    this.prompt = prompt;
    recording.remove(recording.of(prompt)); // of a burst that was interrupted
    this.render();
    this.announce(requestOf(prompt));
    this.isCounting = true;
    for (let seconds = COUNTDOWN_S; seconds > 0; seconds--) {
      this.view.showOverlay(String(seconds), requestOf(prompt));
      this.lookForHints(prompt);
      await sleep(1000, signal);
    }
    this.isCounting = false;
    this.$(".hint").textContent = "";
    const shots = [];
    const number = recording.shotsOf(prompt);
    while (shots.length < number) {
      this.view.showOverlay("", `${shots.length + 1} of ${number} · ${prompt.fingers === undefined ? "hands down" : "move it a little"}`);
      await sleep(SHOT_INTERVAL_MS, signal);
      const frame = await grab(this.video);
      signal.throwIfAborted();
      if (frame) shots.push(await this.addShot(prompt, frame));
      signal.throwIfAborted();
    }
    recording.answered.add(prompt.key);
    this.view.showOverlay("", "Checking …");
    await Promise.race([Promise.allSettled(shots.map(({ checked }) => checked)), sleep(CHECK_MS, signal)]);
    signal.throwIfAborted();
    const question = questionOf(prompt, shots, isFirst);
    if (!question) return;
    this.view.hideOverlay();
    this.announce(question.text);
    if (await this.question.ask(question, !isRearCamera(this.stream), signal)) recording.redo(prompt);
  }

  async addShot(prompt, frame) {
    const { width, height } = frame;
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d").drawImage(frame, 0, 0);
    frame.close();
    const jpeg = await canvas.convertToBlob({ type: "image/jpeg", quality: JPEG_QUALITY });
    const shot = this.recording.add(prompt, { jpeg, url: URL.createObjectURL(jpeg) });
    shot.checked = this.check(shot);
    shot.checked.catch(() => {}); // asked again before learning
    this.render();
    return shot;
  }

  // Predict a picture: what is seen in it, and what can be learned from it.
  async check(shot) {
    const prediction = await this.predict(() => createImageBitmap(shot.jpeg), { candidates: true });
    shot.seen = assess(prediction, shot.prompt, this.data.labels);
    shot.candidates = prediction.candidates;
    this.render();
  }

  // While the countdown runs: what the visitor can do for better pictures.
  async lookForHints(prompt) {
    if (!this.predictor.isReady || this.isLooking) return;
    this.isLooking = true;
    const prediction = await this.predict(() => grab(this.video), {}).catch(() => undefined);
    this.isLooking = false;
    if (!prediction || !this.isCounting || this.prompt !== prompt) return;
    const { hands } = prediction;
    const missing = prompt.fingers !== undefined && !hands.length ? "No hand in view yet" : "";
    this.$(".hint").textContent = hintFor(prediction, hands, 0, this.data.labels) || missing;
  }

  // One picture at a time, in turn.
  predict(takePicture, options) {
    const { predictor } = this;
    const predict = async () => {
      const { prediction, bitmap } = await predictor.predict(await takePicture(), options);
      bitmap.close();
      predictor.isReady = true;
      return prediction;
    };
    return (this.turnOfPictures = (this.turnOfPictures ?? Promise.resolve()).catch(() => {}).then(predict));
  }

  // Learning

  async learn() {
    this.stop();
    this.isLearning = true;
    this.result = this.cannotLearn = undefined;
    this.render();
    try {
      for (const shot of this.recording.shots) if (!shot.candidates) await this.untilAnswered(() => this.check(shot));
      const { shots } = this.recording;
      const pictures = shots.map(({ target, round, candidates }) => ({ target, round, candidates }));
      const answer = await this.untilAnswered(() => fit(pictures));
      this.result = { ...answer, shots, figures: JSON.parse(answer.head).figures };
    } catch ({ name, message }) {
      if (name === "CannotLearn") this.cannotLearn = message;
      this.problem = name === "CannotLearn" ? message : this.data.problems.runtime;
    }
    this.isLearning = false;
    this.render();
    this.announce(this.$(".result h2")?.textContent ?? this.problem);
  }

  // A server that is busy, or does not answer, is asked again.
  async untilAnswered(request) {
    for (;;) {
      try {
        return await request();
      } catch (error) {
        const text = { ServerBusy: "The server is busy.", Offline: "The server does not answer." }[error.name];
        if (!text || !this.root.isConnected) throw error;
        this.problem = `${text} Trying again …`;
        this.render();
        await sleep(RETRY_MS);
        this.problem = "";
      }
    }
  }

  useOnLive() {
    use(this.result.head, { keep: this.$(".keep-head").checked });
    this.isSaved ||= this.$(".keep-head").checked;
    this.report.goToLive();
  }

  saveHead() {
    download(new Blob([this.result.head], { type: "application/json" }), "my-hand.json");
    this.isSaved = true;
  }

  async saveZip() {
    download(await zip(filesOf(this.recording)), "own-hand.zip");
    this.isSaved = true;
  }

  render() {
    this.view.render(this);
  }

  // For screen readers.
  announce(text) {
    this.$(".announcement").textContent = text;
  }
}

// "Show 3 · left hand".
function requestOf({ fingers, side }) {
  return fingers === undefined ? "Hands down" : `Show ${fingers}${side ? ` · ${side} hand` : ""}`;
}
