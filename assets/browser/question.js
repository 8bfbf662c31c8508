// A question about pictures, over one of them, with two buttons. After a while it is answered as most would.

import { sleep } from "./sleep.js";

const TIMEOUT_MS = 7000;

export class Question {
  // `draw(canvas, shot, mirror)` draws a picture.
  constructor(root, draw) {
    this.root = root;
    this.draw = draw;
    this.keep = root.querySelector(".keep");
    this.redo = root.querySelector(".redo");
    this.keep.onclick = () => this.answer(false);
    this.redo.onclick = () => this.answer(true);
  }

  // Returns whether to take the pictures again; unanswered, `redo`.
  async ask({ text, shot, redo, keepText, redoText }, mirror, signal) {
    this.root.querySelector("p").textContent = text;
    this.keep.textContent = keepText;
    this.redo.textContent = redoText;
    this.keep.classList.toggle("default", !redo);
    this.redo.classList.toggle("default", redo);
    this.root.style.setProperty("--ms", `${TIMEOUT_MS}ms`);
    this.draw(this.root.querySelector("canvas"), shot, mirror);
    this.root.hidden = false;
    try {
      const answered = new Promise((resolve) => (this.resolve = resolve));
      return await Promise.race([answered, sleep(TIMEOUT_MS, signal).then(() => redo)]);
    } finally {
      this.resolve = undefined;
      this.root.hidden = true;
    }
  }

  answer(redo) {
    this.resolve?.(redo);
  }
}
