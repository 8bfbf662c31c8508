// The pictures of a visit to Teach: which are asked for, which were taken, and what they show. No camera and no page here.

import { decodeProbabilities, encodeTarget } from "./labels.js";
import { DARK_LEVEL, isCutOff } from "./words.js";

const ROUNDS = 3; // each shows the hand anew: a head is tested on those that it was not fitted on
const ROOM_SHOTS = 9; // three a round
export const MAX_SHOTS = 500; // as in web/teach.py
export const COUNTDOWN_S = 3;
export const SHOT_INTERVAL_MS = 500; // time for the hand to move a little between two pictures
const CHECK_MS = 500; // of a prompt, about: its pictures are predicted while they are taken
const MARKED_SHARE = 0.5; // of a prompt's pictures: from so many on, the visitor is asked

export class Recording {
  // `hands` is "left", "right", "both", or "either": then only the count is learned. `burst` pictures are taken at a time.
  constructor(labels) {
    this.labels = labels;
    this.hands = "right";
    this.burst = 3;
    this.rounds = ROUNDS;
    this.shots = []; // {prompt, round, target, jpeg, url, width, height, seen, candidates}
    this.answered = new Set(); // keys of prompts that were recorded, or skipped
  }

  // What is asked for, in this order: {key, round, fingers, side}. First, the room: without fingers.
  get plan() {
    const { counts, sides } = this.labels;
    const asked = { left: ["left"], right: ["right"], both: sides, either: [undefined] }[this.hands];
    const rounds = Array.from({ length: this.rounds }, (_, i) => i + 1);
    const prompts = rounds.flatMap((round) => asked.flatMap((side) => counts.map((fingers) => ({ round, fingers, side }))));
    return [{ round: 1 }, ...prompts].map((prompt) => ({ ...prompt, key: `${prompt.round} ${promptInWords(prompt)}` }));
  }

  get next() {
    return this.plan.find(({ key }) => !this.answered.has(key));
  }

  get isComplete() {
    return !this.next;
  }

  // Pictures that are taken of a prompt.
  shotsOf({ fingers }) {
    return fingers === undefined ? ROOM_SHOTS : this.burst;
  }

  // Seconds that the rest takes, if nothing is to be redone.
  get secondsLeft() {
    const left = this.plan.filter(({ key }) => !this.answered.has(key));
    const milliseconds = (prompt) => 1000 * COUNTDOWN_S + this.shotsOf(prompt) * SHOT_INTERVAL_MS + CHECK_MS;
    return left.reduce((sum, prompt) => sum + milliseconds(prompt), 0) / 1000;
  }

  // Add a picture. Those of the room, which are taken once, are of all rounds.
  add(prompt, picture) {
    const taken = this.of(prompt).length;
    const round = prompt.fingers === undefined ? (taken % ROUNDS) + 1 : prompt.round;
    const shot = { ...picture, prompt, round, target: encodeTarget(prompt, this.labels) };
    this.shots.push(shot);
    return shot;
  }

  of({ key }) {
    return this.shots.filter(({ prompt }) => prompt.key === key);
  }

  remove(shots) {
    this.shots = this.shots.filter((shot) => !shots.includes(shot));
    for (const { url } of shots) URL.revokeObjectURL(url);
  }

  // Ask for a prompt again.
  redo(prompt) {
    this.remove(this.of(prompt));
    this.answered.delete(prompt.key);
  }

  clear() {
    this.remove(this.shots);
    this.answered.clear();
    this.rounds = ROUNDS;
  }

  // The prompts with pictures, each with those: [[prompt, shots], …].
  get groups() {
    const prompts = new Map(this.shots.map(({ prompt }) => [prompt.key, prompt]));
    return [...prompts.values()].map((prompt) => [prompt, this.of(prompt)]);
  }
}

// "3 fingers, left hand", "3 fingers", "room".
export function promptInWords({ fingers, side }) {
  if (fingers === undefined) return "room";
  return `${fingers} finger${fingers === 1 ? "" : "s"}${side ? `, ${side} hand` : ""}`;
}

// What a prediction sees where a prompt was asked for: {hands: how many, best: the hand that is most probably the one
// asked for, mark: what is wrong, or undefined}. Marks are "dark", "none", "cut off", "several" and "other", of which the
// last may be the model's error; of the room, "hand".
export function assess(prediction, prompt, labels) {
  const { width, height, brightness } = prediction;
  const hands = prediction.hands.map((hand) => ({ ...hand, ...decodeProbabilities(hand.probabilities, labels) }));
  const score = ({ probabilities }) => {
    const target = encodeTarget(prompt, labels);
    return probabilities[target] ?? Math.max(...probabilities.filter((_, i) => i % labels.counts.length === prompt.fingers));
  };
  const best = hands.reduce((a, b) => (a && score(a) >= score(b) ? a : b), undefined);
  const isOther = best && (best.fingers !== prompt.fingers || (prompt.side && best.side !== prompt.side));
  let mark;
  if (prompt.fingers === undefined) mark = best && "hand";
  else if (!best) mark = brightness < DARK_LEVEL ? "dark" : "none";
  else if (isCutOff(best.box, width, height)) mark = "cut off";
  else if (hands.length > 1) mark = "several";
  else if (isOther) mark = "other";
  return { hands: hands.length, best, mark };
}

// What to ask about the pictures of a prompt: {text, shot: one of them, keepText, redoText, redo: whether to take them again
// where nobody answers}; undefined where most are as expected. `isFirst`: they were not taken again yet.
export function questionOf(prompt, shots, isFirst) {
  const marks = shots.map(({ seen }) => seen?.mark).filter(Boolean);
  const count = (mark) => marks.filter((one) => one === mark).length;
  const mark = marks.reduce((a, b) => (a && count(a) >= count(b) ? a : b), undefined);
  if (!mark || marks.length < MARKED_SHARE * shots.length) return undefined;
  const shot = shots.find(({ seen }) => seen?.mark === mark);
  const { best, hands } = shot.seen;
  const text = {
    dark: "It is too dark to see a hand. Turn on a light, or face a window.",
    none: "No hand found. Hold it up, an arm's length from the camera.",
    "cut off": "Your hand is cut off. Move it fully into view.",
    several: `We see ${hands} hands. Show only one.`,
    hand: "We see a hand. Was one of yours in view?",
    other: best && difference(best, prompt),
  }[mark];
  const [keepText, redoText] = { other: ["Yes, keep", "No, take again"], hand: ["No, keep", "Yes, take again"] }[mark] ?? ["Keep", "Take again"];
  // What the model sees differently is what it can learn: if the visitor says nothing, that was no mistake of theirs.
  return { text, shot, keepText, redoText, redo: isFirst && mark !== "other" && mark !== "hand" };
}

function difference(seen, { fingers, side }) {
  if (seen.fingers !== fingers) return `We see ${seen.fingers}. Did you show ${fingers}?`;
  return `We see your ${seen.side} hand. Did you show your ${side} one?`;
}

// The files of the ZIP that training/data/sources/own_hand.py reads: [name, content]. A class is a folder: 3L; a count
// without a side, too: 3. Pictures of the room are in room/.
export function filesOf({ shots, labels }) {
  const rows = ["file,round,x0,y0,x1,y1"];
  const numbers = new Map();
  const files = shots.map(({ prompt, round, jpeg, seen }) => {
    const { fingers, side } = prompt;
    const folder = fingers === undefined ? "room" : `${fingers}${side ? side[0].toUpperCase() : ""}`;
    numbers.set(folder, (numbers.get(folder) ?? 0) + 1);
    const name = `${folder}/${String(numbers.get(folder)).padStart(4, "0")}.jpg`;
    const box = seen?.best ? seen.best.box.map((x) => x.toFixed(1)) : ["", "", "", ""];
    if (fingers !== undefined) rows.push([name, round, ...box].join());
    return [name, jpeg];
  });
  return [...files, ["hands.csv", `${rows.join("\n")}\n`], ["README.txt", README]];
}

const README = `Pictures of one hand, as the camera took them, not mirrored; one folder per class: 3L is three
fingers of the left hand, 3 is three fingers of either. room has pictures without a hand. hands.csv has the box where the
model detected the hand (x0,y0,x1,y1 in pixels; empty where it detected none), and the round in which the picture was
taken.

To train on them, put this ZIP into data/own and follow docs/teach.md.
`;
