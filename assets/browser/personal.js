// The visitor's personal head, see handful/personal.py: one for all pages, as this module stays until the tab is reloaded.
// It is kept on the device only if the visitor says so.
//
// A page calls `connect` first, with `heads` of its data: {model: SHA-256, shapes: {name: sizes}} of the heads' arrays
// that a personal head replaces.

const KEY = "handful-personal";
const KIND = "personal head";
const MAX_BYTES = 100_000;
const MAX_WEIGHT = 1e3;
const CHOOSE = "Choose a file that was saved on the Teach page.";

let expected; // {model, shapes}
let stored; // {id, text, head, weights}, or null
let isOnNow = false;
let isKeptNow = false;
let keptProblem = "";
const subscribers = new Set();

// Takes up what was kept on this device. Returns why that cannot be used, in words, or "".
export function connect(heads) {
  if (expected) return keptProblem;
  expected = heads;
  const kept = readKept();
  if (!kept) return "";
  isKeptNow = true;
  try {
    stored = load(kept.text);
    isOnNow = kept.on !== false;
  } catch (error) {
    keptProblem = error.message;
  }
  return keptProblem;
}

// Why the head that was kept on this device cannot be used, in words; "" if it can, or there is none.
export function problem() {
  return keptProblem;
}

function load(text) {
  // Of two heads, the ids differ, also if the tab was reloaded in between. (crypto.randomUUID needs HTTPS.)
  return { id: `${Date.now()} ${Math.random()}`, text, ...parse(text, expected) };
}

// The head of this visit, on or off: {id, text: the JSON file, head: what it holds, weights: Map of name to Float32Array};
// null if there is none.
export function current() {
  return stored ?? null;
}

// The head that predicts: null where it was turned off.
export function active() {
  return isOnNow ? current() : null;
}

// What it is called: "Personal head of 30 Nov".
export function name() {
  if (!stored) return "";
  const day = new Date(`${stored.head.date}T12:00`).toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  return `Personal head of ${day}`;
}

export function isOn() {
  return isOnNow;
}

// Whether it is kept on this device: false also where the browser does not allow that.
export function isKept() {
  return isKeptNow;
}

// Use the head in the text of a JSON file from now on; throws an Error with words for the visitor.
export function use(text, { keep = false } = {}) {
  stored = load(text);
  [isOnNow, isKeptNow, keptProblem] = [true, keep, ""];
  change();
}

// Keep it on this device, or no longer. Returns whether it is kept.
export function keep(wanted) {
  isKeptNow = wanted;
  change();
  return isKeptNow;
}

export function turnOn() {
  isOnNow = Boolean(stored);
  change();
}

export function turnOff() {
  isOnNow = false;
  change();
}

export function remove() {
  stored = null;
  [isOnNow, isKeptNow, keptProblem] = [false, false, ""];
  change();
}

// Calls back after each change, until the function that it returns is called.
export function subscribe(callback) {
  subscribers.add(callback);
  return () => subscribers.delete(callback);
}

// Read a JSON file as PersonalHead.to_json writes it. Throws an Error that says in words what is wrong with it.
export function parse(text, { model, shapes }) {
  if (new TextEncoder().encode(text).length > MAX_BYTES)
    throw new Error(`This file is too large for a personal head, which has about 15 KB. ${CHOOSE}`);
  let head;
  try {
    head = JSON.parse(text);
  } catch {
    // not JSON
  }
  if (head?.handful !== KIND) throw new Error(`This is not a personal head. ${CHOOSE}`);
  if (head.model !== model)
    throw new Error("This personal head was made for another model. Teach it anew to this one.");
  const weights = new Map(Object.entries(shapes).map(([name, shape]) => [name, toArray(head.weights?.[name], shape)]));
  if (!hasDate(head) || !hasFigures(head) || [...weights.values()].includes(undefined))
    throw new Error(`This personal head is damaged: its numbers cannot be used. ${CHOOSE}`);
  return { head, weights };
}

// Nested lists of a shape as a Float32Array; undefined if they are none, or not of finite, small numbers.
function toArray(values, shape) {
  const isShaped = (list, [size, ...inner]) =>
    size === undefined
      ? typeof list === "number" && Math.abs(list) < MAX_WEIGHT
      : Array.isArray(list) && list.length === size && list.every((one) => isShaped(one, inner));
  return isShaped(values, shape) ? Float32Array.from(values.flat(shape.length)) : undefined;
}

function hasDate({ date }) {
  return /^\d{4}-\d\d-\d\d$/.test(date) && !Number.isNaN(Date.parse(date));
}

function hasFigures({ figures }) {
  const names = ["hands", "correct_before", "correct_after", "empty", "alarms_before", "alarms_after"];
  return names.every((name) => Number.isInteger(figures?.[name]) && figures[name] >= 0) && typeof figures.helped === "boolean";
}

function change() {
  writeKept();
  for (const callback of subscribers) callback();
}

// Local storage may be full or forbidden: then the head lasts as long as the page.

function readKept() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY));
    return typeof kept?.text === "string" ? kept : undefined;
  } catch {
    return undefined;
  }
}

function writeKept() {
  try {
    if (isKeptNow && stored) localStorage.setItem(KEY, JSON.stringify({ text: stored.text, on: isOnNow }));
    else localStorage.removeItem(KEY);
  } catch {
    isKeptNow = false;
  }
}
