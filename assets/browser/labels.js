// As handful/labels.py. `labels` is {counts, sides, fingers}; the classes are its counts of the first side, then of the other.

// The most probable count, summed over the sides, then its more probable side.
export function decodeProbabilities(probabilities, { counts, sides }) {
  const bySide = sides.map((_, side) => probabilities.slice(side * counts.length, (side + 1) * counts.length));
  const count = argmax(counts.map((_, i) => bySide.reduce((sum, scores) => sum + scores[i], 0)));
  const side = argmax(bySide.map((scores) => scores[count]));
  return { label: side * counts.length + count, fingers: counts[count], side: sides[side] };
}

// The `count` fingers that are most likely raised, thumb first.
export function raisedFingers(probabilities, count, { fingers }) {
  const likely = fingers.map((_, i) => i).sort((a, b) => probabilities[b] - probabilities[a]);
  const raised = new Set(likely.slice(0, count));
  return fingers.filter((_, i) => raised.has(i));
}

function argmax(values) {
  return values.indexOf(Math.max(...values));
}

// What a picture is labelled with: a class; a count, where the side is unknown; or "no hand", without a count.
export function encodeTarget({ fingers, side }, { counts, sides }) {
  const classes = sides.length * counts.length;
  if (fingers === undefined) return classes + counts.length;
  return (side ? sides.indexOf(side) * counts.length : classes) + counts.indexOf(fingers);
}
