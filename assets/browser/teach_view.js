// What the Teach page shows of the state that teach.js holds.

import { isRearCamera } from "./camera.js";
import { changesOf, resultHtml } from "./teach_result.js";

const SHOWN_CHANGES = 5;
const POSE_S = 0.5; // of each count in the video of a rendered right hand, whose counts take a second each

export class TeachView {
  constructor(root, review) {
    this.root = root;
    this.review = review;
    this.$ = (selector) => root.querySelector(selector);
    this.preview = this.$(".preview");
    this.pose = this.$(".pose video");
    this.preview.src = this.pose.src = new URL("counting.mp4", import.meta.url).href;
  }

  // Show all that does not change from one moment to the next.
  render(teach) {
    const { recording, result, prompt, stream } = teach;
    const isRunning = this.root.dataset.state === "running";
    this.showAction(teach);
    this.showSettings(teach, isRunning);
    this.showSteps(teach);
    this.showProgress(recording, result, isRunning);
    this.showPreview(!isRunning);
    this.$(".ask").hidden = !isRunning;
    if (isRunning && prompt) this.showPrompt(prompt, isRearCamera(stream));
    this.showResult(recording, result, !teach.session && recording.shots.length > 0);
    this.review.showStrip(this.$(".last"), isRunning && prompt ? recording.of(prompt) : []);
    this.review.show(recording, isRunning);
  }

  showAction({ action: [label, action, other], problem }) {
    this.$(".problem").textContent = problem;
    if (this.root.dataset.state === "opening") return;
    this.$(".start").textContent = label;
    this.$(".start").disabled = !action;
    this.$(".other").textContent = other ?? "";
    this.$(".other").hidden = !other;
  }

  showSettings({ recording, read, hasFailedHere, isLearning, result }, isRunning) {
    for (const fieldset of this.root.querySelectorAll(".settings fieldset")) fieldset.disabled = isRunning;
    for (const [name, value] of Object.entries({ hands: recording.hands, burst: recording.burst, read }))
      this.$(`[name=${name}][value="${value}"]`).checked = true;
    this.$(".choices").hidden = isRunning || isLearning || Boolean(result);
    this.$(".privacy").textContent =
      read === "browser"
        ? "Your pictures stay on this device. To learn, numbers computed from them go to this server."
        : `${hasFailedHere ? "The model cannot be loaded on this device. " : ""}Your pictures go to this server one by one and are not stored.`;
  }

  showSteps({ recording, result, isLearning }) {
    const step = result?.figures.helped ? 2 : result || isLearning || recording.isComplete ? 1 : 0;
    [...this.$(".steps").children].forEach((item, i) => {
      if (i === step) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
      item.classList.toggle("done", i < step);
    });
  }

  showProgress(recording, result, isRunning) {
    const { plan, shots, answered } = recording;
    const done = plan.filter(({ key }) => answered.has(key)).length;
    this.$(".explain").hidden = isRunning || Boolean(shots.length) || Boolean(result);
    this.$(".progress").hidden = Boolean(result) || (recording.isComplete && !isRunning);
    this.$(".progress progress").value = done / plan.length;
    this.$(".progress progress").hidden = !done && !isRunning;
    const seconds = recording.secondsLeft;
    const time = seconds > 90 ? `${Math.round(seconds / 60)} minutes` : `${Math.max(10, 10 * Math.round(seconds / 10))} seconds`;
    const pictures = plan.reduce((sum, prompt) => sum + recording.shotsOf(prompt), 0);
    this.$(".left").textContent =
      done || shots.length ? `${done} of ${plan.length} done, about ${time} to go` : `About ${time}, ${pictures} pictures`;
  }

  showPreview(isShown) {
    this.preview.hidden = !isShown;
    if (!isShown || matchMedia("(prefers-reduced-motion: reduce)").matches) this.preview.pause();
    else if (this.root.isConnected) this.preview.play().catch(() => {}); // a browser may forbid it
  }

  // The pose that is asked for.
  showPrompt({ fingers, side }, isRear) {
    const isRoom = fingers === undefined;
    this.$(".what").innerHTML = isRoom ? "Hands down. It learns that nothing here is a hand." : `<b>${fingers}</b> ${fingers === 1 ? "finger" : "fingers"}${side ? `, ${side} hand` : ""}`;
    this.$(".pose").hidden = isRoom;
    if (!isRoom) this.pose.currentTime = fingers + POSE_S;
    // The video shows a right hand; the page a mirror, if the camera is not on the back.
    this.pose.classList.toggle("mirrored", (side === "left") === isRear);
  }

  showResult(recording, result, isShown) {
    this.$(".result").hidden = !isShown;
    if (!isShown) return;
    const wanted = this.$(".keep-head")?.checked ?? false;
    const html = resultHtml(recording, result);
    if (html === this.shownResult) return;
    this.$(".result").innerHTML = this.shownResult = html;
    for (const [name, shots] of result ? Object.entries(changesOf(result)) : []) {
      const box = this.$(`.${name}`);
      box.hidden = !shots.length;
      box.querySelector("p").textContent = `${{ corrected: "Corrected", spoilt: "Not any more" }[name]}: ${shots.length}`;
      this.review.showStrip(box.querySelector("div"), shots.slice(0, SHOWN_CHANGES));
    }
    if (this.$(".keep-head")) this.$(".keep-head").checked = wanted;
  }

  // Over the camera's picture: a countdown, and what to do.
  showOverlay(count, caption) {
    this.$(".overlay").hidden = false;
    this.$(".count").textContent = count;
    this.$(".caption").textContent = caption;
  }

  hideOverlay() {
    this.$(".overlay").hidden = true;
  }
}
