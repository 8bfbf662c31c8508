// The score card of "Show me": on the page, as a picture and as a CSV.

import { download } from "./download.js";

export const TICK = "M30 52 45 67 72 36"; // SVG paths in a box of 100 × 100
export const CROSS = "M34 34 66 66M66 34 34 66";

export class ScoreCard {
  constructor(container, { onPlayAgain, onClose }) {
    this.root = document.createElement("section");
    this.root.className = "show-me-card";
    this.root.setAttribute("role", "dialog");
    this.root.ariaLabel = "Score";
    this.root.innerHTML = `
      <p class="show-me-score"></p>
      <p class="show-me-times"></p>
      <table></table>
      <div class="show-me-actions">
        <button type="button" class="show-me-button show-me-primary">Play again</button>
        <button type="button" class="show-me-button">Save picture</button>
        <button type="button" class="show-me-button">CSV</button>
      </div>
      <button type="button" class="show-me-button show-me-close" aria-label="Close" title="Close">
        <svg viewBox="26 26 48 48" aria-hidden="true"><path d="${CROSS}" /></svg>
      </button>`;
    const [again, picture, csv, close] = this.root.querySelectorAll("button");
    again.onclick = onPlayAgain;
    picture.onclick = () => this.drawPicture().toBlob((blob) => download(blob, "show-me.png"));
    csv.onclick = () => download(new Blob([this.toCsv()], { type: "text/csv" }), "show-me.csv");
    close.onclick = onClose;
    container.append(this.root);
  }

  // Show the rounds, each {asked, shown (null without a hand), correct, seconds (null if incorrect)}.
  // Returns the score in words.
  show(rounds) {
    this.rounds = rounds;
    const seconds = rounds.filter(({ correct }) => correct).map(({ seconds }) => seconds);
    this.score = `${seconds.length} of ${rounds.length}`;
    this.times = seconds.length
      ? `Median time ${median(seconds).toFixed(1)} s, fastest ${Math.min(...seconds).toFixed(1)} s`
      : "Hold each number until the green ring closes.";
    this.root.querySelector(".show-me-score").innerHTML = `<b>${this.score}</b> correct`;
    this.root.querySelector(".show-me-times").textContent = this.times;
    const row = (name, cell) => `<tr><th scope="row">${name}</th>${rounds.map(cell).join("")}</tr>`;
    const mark = ({ correct }) => `<td><svg viewBox="22 22 56 56" role="img"
      aria-label="${correct ? "correct" : "incorrect"}" class="${correct ? "correct" : "incorrect"}"
      ><path d="${correct ? TICK : CROSS}" /></svg></td>`;
    this.root.querySelector("table").innerHTML =
      row("Asked", ({ asked }) => `<td>${asked}</td>`) +
      row("Shown", ({ shown }) => `<td>${shown ?? '<span role="img" aria-label="no hand">–</span>'}</td>`) +
      row('<span class="show-me-status">Result</span>', mark);
    return `${this.score} correct. ${this.times}.`;
  }

  focus() {
    this.root.querySelector("button").focus({ preventScroll: true });
  }

  toCsv() {
    const rows = this.rounds.map(({ asked, shown, correct, seconds }, i) =>
      [i + 1, asked, shown ?? "", correct, seconds?.toFixed(2) ?? ""].join(","),
    );
    return ["round,asked,shown,correct,seconds", ...rows, ""].join("\n");
  }

  // A canvas with the card in the colours of the page.
  drawPicture() {
    const [width, height, margin] = [1200, 630, 66];
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d");
    const style = getComputedStyle(this.root);
    const { backgroundColor, color, fontFamily } = style;
    const write = (text, x, y, size, weight = 400, align = "left", opacity = 1) => {
      Object.assign(context, { font: `${weight} ${size}px ${fontFamily}`, textAlign: align, globalAlpha: opacity });
      context.fillText(text, x, y);
      context.globalAlpha = 1;
      return x + context.measureText(text).width;
    };
    context.fillStyle = backgroundColor;
    context.fillRect(0, 0, width, height);
    context.fillStyle = color;
    write("Show me", margin, 104, 40, 600);
    write("Handful", width - margin, 104, 32, 400, "right", 0.75);
    const end = write(this.score, margin - 4, 268, 144, 700);
    write("correct", end + 24, 268, 48);
    write(this.times, margin, 334, 34, 400, "left", 0.8);
    context.lineCap = context.lineJoin = "round";
    const step = (width - 2 * margin) / this.rounds.length;
    this.rounds.forEach(({ asked, shown, correct }, i) => {
      const x = margin + (i + 0.5) * step;
      context.fillStyle = color;
      context.globalAlpha = 0.07;
      context.beginPath();
      context.roundRect(x - step / 2 + 6, 392, step - 12, 172, 14);
      context.fill();
      context.globalAlpha = 1;
      write(asked, x, 458, 54, 600, "center");
      context.save();
      context.translate(x - 27, 466);
      context.scale(0.54, 0.54);
      Object.assign(context, { strokeStyle: style.getPropertyValue(correct ? "--correct" : "--incorrect"), lineWidth: 12 });
      context.stroke(new Path2D(correct ? TICK : CROSS));
      context.restore();
      if (!correct) write(shown === null ? "no hand" : `${shown} shown`, x, 546, 18, 400, "center", 0.8);
    });
    return canvas;
  }
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
