// The raised fingers and the probability of every class: a column for the left hand, one for the right, always in place.

export class Bars {
  constructor(container, { counts, sides, fingers }) {
    this.counts = counts;
    this.columns = sides.map((side, i) => {
      const head = element("div", `head ${side}`, element("span", "", `${side} hand`));
      const marks = element("span", "fingers", ...fingers.map(() => element("i")));
      marks.setAttribute("role", "img");
      head.append(marks);
      const rows = counts.map(() => {
        const bar = element("i");
        return { bar, share: element("span", `share ${side}`), track: element("span", `track ${side}`, bar) };
      });
      return { side, head, marks, fingers, rows, offset: i * counts.length };
    });
    const [left, right] = this.columns;
    container.append(left.head, element("b"), right.head);
    this.labels = counts.map((count, i) => {
      const label = element("b", "", String(count));
      container.append(left.rows[i].share, left.rows[i].track, label, right.rows[i].track, right.rows[i].share);
      return label;
    });
    this.show([]);
  }

  // Each column shows the hand of its side; of several, the one with the highest confidence.
  show(hands) {
    const predicted = new Set();
    for (const { side, marks, fingers, rows, offset } of this.columns) {
      const [hand] = hands.filter((one) => one.side === side).sort((a, b) => b.confidence - a.confidence);
      if (hand) predicted.add(hand.fingers);
      marks.setAttribute("aria-label", hand ? `${side} hand, raised: ${hand.raised.join(", ") || "none"}` : `no ${side} hand`);
      [...marks.children].forEach((mark, i) => (mark.className = hand?.raised.includes(fingers[i]) ? "raised" : ""));
      rows.forEach(({ bar, share }, i) => {
        const percent = hand ? Math.round(100 * hand.probabilities[offset + i]) : 0;
        bar.style.width = `${percent}%`;
        share.textContent = hand ? `${percent}%` : "";
      });
    }
    this.labels.forEach((label, i) => (label.className = predicted.has(this.counts[i]) ? "predicted" : ""));
  }
}

function element(name, className = "", ...children) {
  const created = document.createElement(name);
  created.className = className;
  created.append(...children);
  return created;
}
