// The number of raised fingers over the last seconds, as a step chart; and that of the whole session, as CSV.

const SPAN_S = 30;
const MAX_ROWS = 54_000; // of the CSV: an hour of 15 frames per second; later ones replace the first
const STALL_S = 1; // a longer pause between two frames is a gap, too

export class History {
  constructor(container) {
    this.root = document.createElement("div");
    this.root.className = "history";
    this.root.setAttribute("role", "img");
    this.root.ariaLabel = `Number of raised fingers over the last ${SPAN_S} seconds`;
    this.root.innerHTML = `
      <div class="history-numbers"></div>
      <svg class="history-plot" preserveAspectRatio="none"><path class="history-grid" /><path class="history-steps" /></svg>
      <div class="history-times">
        <span>${SPAN_S} seconds ago</span><span style="left: 50%">${SPAN_S / 2}</span><span style="left: 100%">now</span>
      </div>`;
    this.svg = this.root.querySelector("svg");
    container.append(this.root);
    this.clear();
  }

  clear() {
    this.steps = []; // {seconds, total} of frames whose total is another than that of the frame before
    this.rows = [];
    this.first = this.last = undefined;
    this.draw();
  }

  // Take a frame: `total` raised fingers, null without a hand; `seconds` is monotonic.
  push({ seconds, total, hands }) {
    this.first ??= seconds;
    if (seconds - this.last > STALL_S) this.steps.push({ seconds: this.last, total: null });
    if (total !== this.steps.at(-1)?.total) this.steps.push({ seconds, total });
    this.last = seconds;
    while (this.steps[1]?.seconds <= seconds - SPAN_S) this.steps.shift();
    this.rows.push([(seconds - this.first).toFixed(3), total ?? "", ...["left", "right"].flatMap((side) => cells(hands, side))]);
    if (this.rows.length > MAX_ROWS) this.rows.shift();
    this.draw();
  }

  // One row a frame; empty cells for a hand that is not seen.
  toCsv() {
    const names = ["seconds", "total", "left", "left_confidence", "right", "right_confidence"];
    return [names, ...this.rows, []].map((row) => row.join(",")).join("\n");
  }

  draw() {
    const top = this.steps.some(({ total }) => total > 10) ? 20 : 10; // two hands, or four
    if (top !== this.top) this.drawNumbers(top);
    const path = this.steps.map(({ seconds, total }, i) => {
      const end = (this.steps[i + 1]?.seconds ?? this.last) - this.last;
      if (total === null) return "";
      const joined = i && this.steps[i - 1].total !== null;
      return `${joined ? "V" : `M${(seconds - this.last).toFixed(2)} `}${-total}H${end.toFixed(2)}`;
    });
    this.svg.lastElementChild.setAttribute("d", path.join(""));
  }

  drawNumbers(top) {
    this.top = top;
    const numbers = [0, top / 2, top];
    this.svg.setAttribute("viewBox", `${-SPAN_S} ${-top} ${SPAN_S} ${top}`);
    this.svg.firstElementChild.setAttribute("d", numbers.map((y) => `M${-SPAN_S} ${-y}H0`).join(""));
    const spans = numbers.map((y) => `<span style="bottom: ${(100 * y) / top}%">${y}</span>`);
    this.root.firstElementChild.innerHTML = `${spans.join("")}<span class="history-title">fingers</span>`;
  }
}

// Fingers and confidence of the hands of one side: the sum of all, and the lowest.
function cells(hands, side) {
  const those = hands.filter((hand) => hand.side === side);
  if (!those.length) return ["", ""];
  const fingers = those.reduce((sum, hand) => sum + hand.fingers, 0);
  return [fingers, Math.min(...those.map(({ confidence }) => confidence)).toFixed(3)];
}
