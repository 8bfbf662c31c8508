// The visitor's personal head on pages that predict: its name, and a switch. Without one, nothing is to be seen.

import * as personal from "./personal.js";

// Shows it in an element, and what becomes of it. Returns a function that ends this.
export function showChip(root) {
  root.innerHTML = `
    <label class="toggle" title="Predicts as you taught it"><input type="checkbox" role="switch" /> <span></span></label>
    <a href="teach">Personal head cannot be used</a>`;
  const [toggle, problem, input] = ["label", "a", "input"].map((selector) => root.querySelector(selector));
  const show = () => {
    toggle.hidden = !personal.current();
    problem.hidden = !personal.problem();
    root.querySelector("span").textContent = personal.name();
    input.checked = personal.isOn();
  };
  input.onchange = () => (input.checked ? personal.turnOn() : personal.turnOff());
  show();
  return personal.subscribe(show);
}

// As a component of its own: it gives the server the head that is on, for the pages that predict there. `known` of the data
// is the id of the one that the server has of this visit, or "".
const mounted = new WeakMap(); // of each element, what ends it: Streamlit mounts it again with each run

export default function ({ parentElement, data, setStateValue }) {
  personal.connect(data.heads);
  const root = parentElement.querySelector(".chip");
  mounted.get(root)?.();
  const send = () => {
    const { id = "", text = "" } = personal.active() ?? {};
    if (id !== data.known) setStateValue("head", { id, text });
  };
  const ends = [showChip(root), personal.subscribe(send)];
  send();
  const unmount = () => ends.forEach((end) => end());
  mounted.set(root, unmount);
  return unmount;
}
