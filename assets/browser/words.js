// What Live and Teach say of a frame.

export const DARK_LEVEL = 35; // mean of green, 0-255; in a darker room, hands drown in the camera's noise
const EDGE_MARGIN = 0.01; // share of the frame's width or height
const NO_HAND_HINT_MS = 5000;

// "left · 3 (98%) and right · 5 (97%)"; `hidden` hands have too little confidence.
export function inWords(hands, hidden) {
  const shown = hands.map(({ side, fingers, confidence }) => `${side} · ${fingers} (${Math.round(100 * confidence)}%)`);
  const below = hidden ? `${hidden} hand${hidden === 1 ? "" : "s"} below the minimum confidence` : "";
  if (!shown.length) return below || "No hand in view";
  return [shown.join(" and "), below].filter(Boolean).join("; ");
}

// What the visitor can do for better predictions, or "".
export function hintFor({ brightness, width, height }, hands, withoutHandMs, { max_hands: maxHands }) {
  if (brightness < DARK_LEVEL) return "It is too dark. Turn on a light, or face a window.";
  if (hands.some(({ box }) => isCutOff(box, width, height))) return "Your hand is cut off. Move it fully into view.";
  if (hands.length >= maxHands) return `At most ${maxHands} hands are counted.`;
  if (withoutHandMs >= NO_HAND_HINT_MS)
    return "No hand seen for a while. Hold one up, about an arm's length from the camera.";
  return "";
}

// At the lower edge, that is the hand's arm.
export function isCutOff([x0, y0, x1], width, height) {
  return x0 <= EDGE_MARGIN * width || y0 <= EDGE_MARGIN * height || x1 >= (1 - EDGE_MARGIN) * width;
}
