// The visitor's personal head on the Teach page: what it is, its file, whether it is kept, and a saved one to load.

import { download } from "./download.js";
import { connect, current, isKept, isOn, keep, problem, remove, subscribe, turnOff, turnOn, use } from "./personal.js";

const MAX_BYTES = 1_000_000; // personal.js refuses far smaller files, in words; larger ones are not even read

export class HeadPanel {
  constructor(root, heads) {
    this.root = root;
    root.innerHTML = `
      <h2>Personal head</h2>
      <p class="about"></p>
      <div class="buttons">
        <label class="toggle"><input type="checkbox" class="on" role="switch" /> In use</label>
        <label class="toggle"><input type="checkbox" class="kept" role="switch" /> Keep on this device</label>
        <button type="button" class="save">Save file</button>
        <button type="button" class="remove">Remove</button>
        <label class="file"><input type="file" accept="application/json,.json" /><span>Load a saved one …</span></label>
      </div>
      <p class="wrong" role="status"></p>`;
    this.$ = (selector) => root.querySelector(selector);
    this.$(".on").onchange = ({ target }) => (target.checked ? turnOn() : turnOff());
    this.$(".kept").onchange = ({ target }) => this.keep(target.checked);
    this.$(".save").onclick = () => download(new Blob([current().text], { type: "application/json" }), "my-hand.json");
    this.$(".remove").onclick = () => {
      remove();
      this.say("");
    };
    const input = this.$("[type=file]");
    input.onchange = () => {
      this.load(input.files[0]);
      input.value = ""; // the same file again is a change, too
    };
    root.ondragover = (event) => event.preventDefault();
    root.ondrop = (event) => {
      event.preventDefault();
      this.load(event.dataTransfer.files[0]);
    };
    this.say(connect(heads));
    subscribe(() => this.show());
    this.show();
  }

  keep(wanted) {
    this.say(keep(wanted) === wanted ? "" : "This browser does not let pages keep anything. Save the file instead.");
  }

  async load(file) {
    if (!file) return;
    try {
      use(file.size > MAX_BYTES ? " ".repeat(MAX_BYTES) : await file.text());
      this.say("");
    } catch ({ message }) {
      this.say(`${file.name}: ${message}`);
    }
  }

  say(text) {
    this.$(".wrong").textContent = text;
  }

  show() {
    const head = current()?.head;
    this.$(".about").textContent = head
      ? aboutHead(head)
      : "None yet. What you teach becomes a small file without any picture. Load one that you saved, or drop it here.";
    for (const selector of [".toggle:has(.on)", ".toggle:has(.kept)", ".save"]) this.$(selector).hidden = !head;
    this.$(".remove").hidden = !head && !problem(); // what was kept, but is for another model
    this.$(".on").checked = isOn();
    this.$(".kept").checked = isKept();
  }
}

function aboutHead({ date, figures }) {
  const day = new Date(`${date}T12:00`).toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric" });
  const room = figures.empty ? ` Of ${figures.empty} of the room, a hand was seen in ${figures.alarms_before} before, in ${figures.alarms_after} after.` : "";
  return `Of ${day}. Of ${figures.hands} pictures of a hand, ${figures.correct_before} were predicted correctly before, ${figures.correct_after} after.${room}`;
}
