// The game "Show me", over the camera picture: it asks for ten numbers, which the player shows with the fingers.

import { CROSS, ScoreCard, TICK } from "./score_card.js";

const ROUNDS = 10;
const ONE_HAND_ROUNDS = 3; // the first ones
const ROUND_S = 4;
const HOLD_S = 0.6; // for so long, the number must stay to be taken as the answer: hands pass other numbers on their way
const RESULT_S = 0.8; // of the tick or cross, before the next number
const MAX_STEP_S = 0.5; // of the countdown between two frames: a video that stalls takes no time from the player

export class ShowMe {
  // `onStateChange` is called with "playing", "score" (the card is open) and "idle".
  constructor(container, { onStateChange }) {
    this.onStateChange = onStateChange;
    this.state = "idle";
    this.now = 0; // seconds of play: those of the frames, without stalls
    this.root = document.createElement("div");
    this.root.className = "show-me";
    // The status is always there: screen readers miss one that appears together with its text.
    this.root.innerHTML = `
      <p class="show-me-status" role="status"></p>
      <div class="show-me-stage" hidden>
        <div class="show-me-disc" aria-hidden="true">
          <svg viewBox="0 0 100 100">
            <circle class="show-me-track" cx="50" cy="50" r="46" />
            <circle class="show-me-time" cx="50" cy="50" r="46" pathLength="1" />
            <circle class="show-me-hold" cx="50" cy="50" r="39.5" pathLength="1" />
            <path class="show-me-tick" d="${TICK}" />
            <path class="show-me-cross" d="${CROSS}" />
          </svg>
          <b class="show-me-number"></b>
        </div>
        <span class="show-me-hint" aria-hidden="true"></span>
        <div class="show-me-foot">
          <div class="show-me-progress" role="img">${"<i></i>".repeat(ROUNDS)}</div>
          <button type="button" class="show-me-button">End game</button>
        </div>
      </div>
      <div class="show-me-scrim" hidden></div>`;
    const find = (name) => this.root.querySelector(`.show-me-${name}`);
    this.status = find("status");
    this.stage = find("stage");
    this.time = find("time");
    this.hold = find("hold");
    this.number = find("number");
    this.hint = find("hint");
    this.progress = find("progress");
    this.scrim = find("scrim");
    this.endButton = find("button");
    this.endButton.onclick = () => this.stop();
    this.card = new ScoreCard(this.scrim, { onPlayAgain: () => this.start(), onClose: () => this.stop() });
    this.onKeyDown = (event) => event.key === "Escape" && !event.defaultPrevented && this.stop();
    this.reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
    container.append(this.root);
  }

  get playing() {
    return this.state === "playing";
  }

  start() {
    const { activeElement } = this.root.getRootNode();
    const restarts = this.root.contains(activeElement);
    if (!restarts) this.opener = activeElement;
    this.rounds = [];
    this.setState("playing");
    this.root.scrollIntoView({ block: "nearest" }); // on a phone, the button is far below the picture
    this.ask();
    // A button that was pressed and goes away must not take the keyboard's place on the page with it.
    if (restarts) this.endButton.focus({ preventScroll: true });
  }

  // End the game, or close its score card.
  stop() {
    if (this.state === "idle") return;
    const hadFocus = this.root.contains(this.root.getRootNode().activeElement);
    this.status.textContent = "";
    this.setState("idle");
    if (hadFocus) this.opener?.focus({ preventScroll: true });
  }

  // Take the number of raised fingers of a displayed frame, null without a hand. `seconds` is monotonic.
  update({ total, seconds }) {
    this.now += Math.min(seconds - (this.seconds ?? seconds), MAX_STEP_S);
    this.seconds = seconds;
    if (total !== this.total) this.changed = this.now;
    this.total = total;
    if (!this.playing) return;
    const elapsed = this.now - this.begun;
    if (this.result) {
      if (elapsed >= RESULT_S) this.rounds.length < ROUNDS ? this.ask() : this.showScore();
      return;
    }
    const held = total === this.target ? this.now - this.changed : 0;
    if (held >= HOLD_S) this.endRound(this.now - held - this.begun);
    // Who shows the number just in time may hold it to the end.
    else if (elapsed >= ROUND_S && total !== this.target) this.endRound(null);
    else this.drawRings(1 - elapsed / ROUND_S, held / HOLD_S);
  }

  // Ask for a number: neither the last one nor that which is shown already.
  ask() {
    const max = this.rounds.length < ONE_HAND_ROUNDS ? 5 : 10;
    const numbers = Array.from({ length: max }, (_, i) => i + 1).filter((n) => n !== this.target && n !== this.total);
    this.target = numbers[Math.floor(Math.random() * numbers.length)];
    this.begun = this.now;
    this.setResult("");
    this.number.textContent = this.target;
    const fingers = `hold up ${this.target} finger${this.target > 1 ? "s" : ""}`; // as a first example
    this.hint.textContent = this.target > 5 ? "two hands" : this.rounds.length ? "" : fingers;
    this.status.textContent = `Show me ${this.target}${this.target > 5 ? ", with two hands" : ""}.`;
    this.drawRings(1, 0);
  }

  // `seconds` until the number was shown, null if it was not.
  endRound(seconds) {
    const correct = seconds !== null;
    this.rounds.push({ asked: this.target, shown: this.total, correct, seconds });
    this.begun = this.now;
    this.setResult(correct ? "correct" : "incorrect");
    const shown = this.total === null ? "no hand" : `${this.total} shown`;
    this.hint.textContent = correct ? "" : shown;
    this.status.textContent = correct ? "Correct." : `Incorrect: ${shown}.`;
  }

  setResult(result) {
    this.result = result;
    this.stage.dataset.result = result;
    [...this.progress.children].forEach((dot, i) => {
      const round = this.rounds[i];
      if (round) dot.className = round.correct ? "correct" : "incorrect";
      else dot.className = i === this.rounds.length ? "current" : "";
    });
    const score = this.rounds.filter(({ correct }) => correct).length;
    this.progress.ariaLabel = `${score} of ${this.rounds.length} correct, ${ROUNDS} rounds`;
  }

  // Both from 0 to 1.
  drawRings(time, hold) {
    const remaining = this.reducedMotion.matches ? Math.ceil(time * ROUND_S) / ROUND_S : time; // in whole seconds
    this.time.style.strokeDashoffset = 1 - Math.max(remaining, 0);
    this.hold.style.strokeDashoffset = 1 - hold;
  }

  showScore() {
    this.status.textContent = this.card.show(this.rounds);
    this.setState("score");
    this.card.focus();
  }

  setState(state) {
    this.stage.hidden = state !== "playing";
    this.scrim.hidden = state !== "score";
    // Wherever the focus is: nobody searches a button while counting.
    if (state === "idle") document.removeEventListener("keydown", this.onKeyDown);
    else document.addEventListener("keydown", this.onKeyDown);
    if (state === this.state) return;
    this.state = state;
    this.onStateChange(state);
  }
}
