// Draws the count of a video over time, with a cursor at the frame that the player shows; moving it moves the player.

const fingersInWords = (count) => (count === null ? "no hand" : `${count} finger${count === 1 ? "" : "s"}`);

// The marks of an axis: at most eight, at round seconds.
function ticks(seconds) {
  const step = [0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800].find((one) => seconds / one <= 8) ?? 3600;
  return Array.from({ length: Math.floor(seconds / step) + 1 }, (_, i) => i * step);
}

// `steps` are [seconds, count or null, hands in words], one where anything changes; there is a gap without a hand.
function drawCount(steps, seconds, top) {
  let path = "";
  steps.forEach(([start, count], i) => {
    if (count === null) return;
    const isOpen = i > 0 && steps[i - 1][1] !== null;
    const y = 100 * (1 - count / top);
    path += `${isOpen ? "V" : `M${(100 * start) / seconds} `}${y}H${(100 * (steps[i + 1]?.[0] ?? seconds)) / seconds}`;
  });
  return path;
}

export default function ({ parentElement, data: { steps, seconds, top, player } }) {
  const find = (selector) => parentElement.querySelector(selector);
  const rows = Array.from({ length: 6 }, (_, i) => (i * top) / 5);
  find(".plot").innerHTML = `
    <svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">
      ${rows.map((count) => `<path class="grid" d="M0 ${100 * (1 - count / top)}H100"/>`).join("")}
      <path class="count" d="${drawCount(steps, seconds, top)}"/>
      <path class="cursor" d="M0 0V100"/>
    </svg>
    ${rows.map((count) => `<span class="y" style="top:${100 * (1 - count / top)}%">${count}</span>`).join("")}
    ${ticks(seconds)
      .map((one) => `<span class="x" style="left:${(100 * one) / seconds}%">${one}</span>`)
      .join("")}
    <span class="y title">fingers</span><span class="x title">seconds</span>
    <input type="range" min="0" max="${seconds}" step="any" value="0" aria-label="Position in the video">`;
  const cursor = find(".cursor");
  const range = find("input");

  function show(time) {
    const [, count, hands] = steps.findLast(([start]) => start <= time + 0.001) ?? steps[0];
    const text = `${time.toFixed(1)} s · ${fingersInWords(count)}${hands ? ` · ${hands}` : ""}`;
    const x = 100 * Math.min(time / seconds, 1);
    cursor.setAttribute("d", `M${x} 0V100`);
    find(".now").textContent = text;
    range.value = time;
    range.setAttribute("aria-valuetext", text);
  }

  let shown;
  let request;
  function follow() {
    const video = document.querySelector(`.st-key-${player} video`); // Streamlit may put it there later
    const time = video?.currentTime ?? 0;
    if (time !== shown) show((shown = time));
    request = requestAnimationFrame(follow);
  }
  follow();
  range.oninput = () => {
    const video = document.querySelector(`.st-key-${player} video`);
    if (video) video.currentTime = range.value;
  };
  // Arrow keys would move by a hundredth of the range.
  range.onkeydown = (event) => {
    const direction = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!direction) return;
    event.preventDefault();
    range.value = Number(range.value) + 0.1 * direction;
    range.oninput();
  };
  return () => cancelAnimationFrame(request);
}
