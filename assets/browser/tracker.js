// As handful/tracking.py, which explains it: tests/browser/test_camera.py feeds both the same predictions.

import { decodeProbabilities, raisedFingers } from "./labels.js";

const PROBABILITY_TIME_CONSTANT_S = 0.08;
const BOX_TIME_CONSTANT_S = 0.05;
const MIN_AGE_S = 0.08;
const MAX_MISSED_S = 0.25;
const MAX_GAP_S = 1.0;
const FIRST_FRAME_WEIGHT = 0.2;
const HYSTERESIS = 2.5;
const JUMP_IOU = 0.2;

class Track {
  constructor(hand, seconds, shown, labels) {
    this.labels = labels;
    this.lastHand = hand;
    this.smoothed = decodeHand(hand, hand.probabilities, labels);
    this.evidence = allProbabilities(hand).map((p) => FIRST_FRAME_WEIGHT * p);
    this.firstSeen = this.lastSeen = seconds;
    this.shown = shown;
  }

  update(hand, seconds) {
    const elapsed = seconds - this.lastSeen;
    this.lastHand = hand;
    this.lastSeen = seconds;
    const decay = Math.exp(-elapsed / PROBABILITY_TIME_CONSTANT_S);
    const latest = allProbabilities(hand);
    this.evidence = this.evidence.map((value, i) => decay * value + (1 - decay) * latest[i]);
    const classes = hand.probabilities.length;
    const weight = this.evidence.slice(0, classes).reduce((sum, value) => sum + value, 0);
    const smoothed = this.evidence.map((value) => value / weight);
    const probabilities = smoothed.slice(0, classes);
    const biased = [...probabilities];
    if (this.shown) biased[this.smoothed.label] *= HYSTERESIS;
    const boxDecay = Math.exp(-elapsed / BOX_TIME_CONSTANT_S);
    const box = interpolate(hand.box, this.smoothed.box, boxDecay);
    const crop = interpolate(hand.crop, this.smoothed.crop, boxDecay);
    const shown = { ...hand, box, crop, probabilities, finger_probabilities: smoothed.slice(classes) };
    this.smoothed = decodeHand(shown, biased, this.labels);
  }
}

export class Tracker {
  constructor(labels) {
    this.labels = labels;
    this.tracks = [];
    this.size = "";
    this.seconds = -Infinity;
  }

  // Add a frame's prediction, taken at `seconds` on a monotonic clock, and return its smoothed hands, left to right:
  // {box, crop, probabilities, finger_probabilities, label, fingers, side, raised, confidence, …}.
  update({ hands, width, height }, seconds) {
    const size = `${width}×${height}`;
    const gap = seconds - this.seconds;
    const restarted = size !== this.size || !(gap >= 0 && gap <= MAX_GAP_S);
    if (restarted) this.tracks = [];
    this.size = size;
    this.seconds = seconds;
    let [missed, added] = this.match(hands, seconds);
    missed = missed.filter((track) => track.shown && seconds - track.lastSeen <= MAX_MISSED_S);
    for (const track of this.tracks) {
      if (track.shown || seconds - track.firstSeen < MIN_AGE_S) continue;
      track.shown = true;
      missed.shift(); // it may be the same hand, elsewhere
    }
    this.tracks.push(...missed, ...added.map((hand) => new Track(hand, seconds, restarted, this.labels)));
    const shown = this.tracks.filter((track) => track.shown).map((track) => track.smoothed);
    return shown.sort((a, b) => a.box[0] - b.box[0]);
  }

  // Update tracks with the hands that continue them, the most similar pairs first.
  // Keeps those in `this.tracks`; returns the tracks without a hand, and the hands without a track.
  match(hands, seconds) {
    const pairs = this.tracks.flatMap((track, i) => hands.map((hand, j) => [affinity(track, hand), i, j]));
    pairs.sort((a, b) => b[0] - a[0] || b[1] - a[1] || b[2] - a[2]);
    const tracks = new Map(this.tracks.entries());
    const added = new Map(hands.entries());
    const matched = [];
    for (const [score, i, j] of pairs) {
      if (!score || !tracks.has(i) || !added.has(j)) continue;
      let track = tracks.get(i);
      const hand = added.get(j);
      tracks.delete(i);
      added.delete(j);
      if (iou(track.lastHand.box, hand.box) < JUMP_IOU) track = new Track(hand, seconds, track.shown, this.labels);
      else track.update(hand, seconds);
      matched[i] = track;
    }
    this.tracks = matched.filter(Boolean);
    return [[...tracks.values()], [...added.values()]];
  }
}

// The hand with the class that `scores` predict, and its confidence.
function decodeHand(hand, scores, labels) {
  const decoded = decodeProbabilities(scores, labels);
  const raised = raisedFingers(hand.finger_probabilities, decoded.fingers, labels);
  return { ...hand, ...decoded, raised, confidence: hand.probabilities[decoded.label] };
}

function allProbabilities(hand) {
  return [...hand.probabilities, ...hand.finger_probabilities];
}

function affinity(track, hand) {
  const shared = track.smoothed.probabilities.map((p, i) => Math.min(p, hand.probabilities[i]));
  return iou(track.lastHand.box, hand.box) * (1 + shared.reduce((sum, p) => sum + p, 0));
}

function iou(a, b) {
  const width = Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0);
  const height = Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
  const area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]);
  return (width * height) / Math.max(area - width * height, 1e-12);
}

function interpolate(a, b, t) {
  return a.map((value, i) => (1 - t) * value + t * b[i]);
}
