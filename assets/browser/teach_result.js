// What learning is worth, in words and bars.

import { countOf } from "./review.js";

// HTML of the panel beside the picture: of a recording, and of what was learned from it, if that was done.
export function resultHtml({ shots, isComplete }, result) {
  if (!result) {
    const marked = shots.filter(({ seen }) => seen?.mark).length;
    const marks = marked ? ` In ${marked}, which are marked below, Handful saw something other than what was asked for. That is what it can learn: delete only those where it was right.` : "";
    return `<h2>${isComplete ? "All is recorded" : "Paused"}</h2><p>${countOf(shots.length, "picture")}.${marks}</p>`;
  }
  const { figures } = result;
  const rows = [
    ["Your hand", "correct", figures.correct_before, figures.correct_after, figures.hands],
    ["Your room", "without a hand", figures.empty - figures.alarms_before, figures.empty - figures.alarms_after, figures.empty],
  ].filter(([, , , , of]) => of);
  const errors = ({ correct_before, correct_after, alarms_before, alarms_after, hands }) => [hands - correct_before + alarms_before, hands - correct_after + alarms_after];
  const [were, are] = errors(figures);
  const title = !figures.helped
    ? "It did not help: nothing is used"
    : are < were
      ? `${countOf(were, "error")} before, ${are} after`
      : were
        ? "As many errors as before, but more certain"
        : "No errors before or after, but more certain";
  const advice = figures.helped
    ? ""
    : "<p>The model does better on these pictures as it is. If you count in your own way, record another round; if pictures are marked, look at them below.</p>";
  const bars = rows
    .map(
      ([name, what, was, is, of]) => `<div class="figure"><p><b>${name}</b> <span>${what}, of ${of}</span></p>
        ${bar("before", was, of)}${bar("after", is, of)}</div>`,
    )
    .join("");
  const use = figures.helped
    ? `<div class="use"><button type="button" class="save-head">Save file</button>
      <label class="toggle"><input type="checkbox" class="keep-head" role="switch" /> Keep on this device</label></div>`
    : "";
  return `<h2>${title}</h2>${bars}
    <p class="note">Each round is predicted with what was learned from the other rounds.</p>
    <div class="changed corrected"><p></p><div></div></div><div class="changed spoilt"><p></p><div></div></div>${advice}${use}`;
}

// The pictures that learning changed: those that are corrected by it, and those that are not any more.
export function changesOf({ shots, before, after }) {
  return {
    corrected: shots.filter((_, i) => !before[i] && after[i]),
    spoilt: shots.filter((_, i) => before[i] && !after[i]),
  };
}

function bar(when, number, of) {
  return `<div class="bar ${when}"><span>${when}</span><i><u style="width: ${(100 * number) / of}%"></u></i><b>${number}</b></div>`;
}
