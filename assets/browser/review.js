// The pictures of a recording as thumbnails, by prompt; each can be looked at and deleted, a prompt taken again.

import { drawFrame } from "./draw.js";
import { promptInWords } from "./recording.js";

const MARKS = {
  dark: "No hand found: it is too dark.",
  none: "No hand found.",
  "cut off": "The hand is cut off.",
  several: "More than one hand.",
  hand: "A hand was found in the room.",
};

export class Review {
  // `onRemove(shots)` and `onRedo(prompt)` are called if the visitor wants that.
  constructor(root, { colors }, { onRemove, onRedo }) {
    this.root = root;
    this.colors = colors;
    this.onRemove = onRemove;
    this.onRedo = onRedo;
    this.dialog = root.querySelector("dialog");
    const on = (name, action) => (this.dialog.querySelector(name).onclick = action);
    on(".delete", () => this.deleteShown());
    on(".previous", () => this.step(-1));
    on(".following", () => this.step(1));
    this.dialog.onkeydown = ({ key }) => {
      if (key === "ArrowLeft") this.step(-1);
      if (key === "ArrowRight") this.step(1);
      if (key === "Delete") this.deleteShown();
    };
  }

  show(recording, isRunning) {
    const section = this.root.querySelector(".review");
    section.hidden = isRunning || !recording.shots.length;
    if (section.hidden) return;
    this.shots = recording.groups.flatMap(([, shots]) => shots);
    const marked = this.shots.filter(({ seen }) => seen?.mark).length;
    section.querySelector("h2").textContent = `${countOf(this.shots.length, "picture")}${marked ? `, ${marked} marked` : ""}`;
    section.querySelector(".prompts").replaceChildren(...recording.groups.map(([prompt, shots]) => this.group(prompt, shots)));
  }

  group(prompt, shots) {
    const group = document.createElement("div");
    group.className = "prompt";
    const title = prompt.fingers === undefined ? "Room" : `${prompt.fingers}${prompt.side ? ` ${prompt.side}` : ""}, round ${prompt.round}`;
    group.innerHTML = `<p><span></span><button type="button" title="Take these again">↻</button></p><div></div>`;
    group.querySelector("span").textContent = title;
    const button = group.querySelector("button");
    button.setAttribute("aria-label", `Take again: ${title}`);
    button.onclick = () => this.onRedo(prompt);
    group.lastChild.replaceChildren(...shots.map((shot) => this.tile(shot)));
    return group;
  }

  // Thumbnails without their groups.
  showStrip(container, shots) {
    container.replaceChildren(...shots.map((shot) => this.tile(shot)));
  }

  tile(shot) {
    const tile = document.createElement("button");
    tile.type = "button";
    tile.className = "tile";
    tile.classList.toggle("marked", Boolean(shot.seen?.mark));
    tile.title = describe(shot);
    tile.setAttribute("aria-label", `${promptInWords(shot.prompt)}. ${describe(shot)} Open`);
    tile.innerHTML = `<img alt="" loading="lazy" /><span></span>`;
    tile.firstChild.src = shot.url;
    const { seen, prompt } = shot;
    const isEmptyRoom = prompt.fingers === undefined && !seen?.best;
    tile.lastChild.textContent = seen ? (isEmptyRoom ? "✓" : (seen.best?.fingers ?? "–")) : "…";
    tile.onclick = () => this.open(shot);
    return tile;
  }

  open(shot) {
    this.shots ??= [shot];
    this.position = Math.max(0, this.shots.indexOf(shot));
    this.showCurrent();
    if (!this.dialog.open) this.dialog.showModal();
  }

  showCurrent() {
    const shot = this.shots[this.position];
    this.draw(this.dialog.querySelector("canvas"), shot);
    const round = shot.prompt.fingers === undefined ? "" : `, round ${shot.round}`;
    this.dialog.querySelector("p").textContent = `${this.position + 1} of ${this.shots.length}. Asked for: ${promptInWords(shot.prompt)}${round}. ${describe(shot)}`;
  }

  step(by) {
    this.position = (this.position + by + this.shots.length) % this.shots.length;
    this.showCurrent();
  }

  deleteShown() {
    const { position } = this;
    this.onRemove([this.shots[position]]); // calls `show`
    if (this.root.querySelector(".review").hidden) {
      this.dialog.close();
      return;
    }
    this.position = Math.min(position, this.shots.length - 1);
    this.showCurrent();
  }

  // Draw a picture with the hand that was seen in it.
  async draw(canvas, { jpeg, seen }, mirror = true) {
    const bitmap = await createImageBitmap(jpeg);
    const { width, height } = bitmap;
    Object.assign(canvas, { width, height });
    const hands = seen?.best ? [seen.best] : [];
    drawFrame(canvas.getContext("2d"), bitmap, { width, height, hands, mirror, colors: this.colors });
    bitmap.close();
  }
}

function describe({ prompt, seen }) {
  if (!seen) return "Not checked yet.";
  if (seen.mark && seen.mark !== "other") return MARKS[seen.mark];
  if (!seen.best) return "No hand, as it should be.";
  const { fingers, side } = seen.best;
  return `We saw ${promptInWords({ fingers, side: prompt.side && side })}.`;
}

export function countOf(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}
