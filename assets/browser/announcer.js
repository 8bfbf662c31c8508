// Says the number of raised fingers, or ticks as often, once it has settled.

const STABLE_S = 0.5;
const TICK_S = 0.16; // from one tick to the next
const GROUP_S = 0.16; // more after five: the ear counts no further

export class Announcer {
  #mode = "off";

  get mode() {
    return this.#mode;
  }

  // "off", "sound" or "speech". To be set on a click or key: only then browsers permit sound.
  set mode(mode) {
    this.silence();
    this.#mode = mode;
    this.announced = undefined; // the present number is announced as a first example
    if (mode === "sound" && globalThis.AudioContext) {
      this.audio ??= new AudioContext();
      this.audio.resume().catch(() => {}); // no audio device: then there is no sound
    }
    if (mode === "speech") this.speak("");
  }

  // Take the number of raised fingers of a frame, null without a hand. `seconds` is monotonic.
  update({ total, seconds }) {
    if (total !== this.total) [this.total, this.since] = [total, seconds];
    if (this.mode === "off" || total === this.announced || seconds - this.since < STABLE_S) return;
    const isFirst = this.announced === undefined;
    this.announced = total;
    this.silence();
    if (this.mode === "sound") this.tick(total);
    else if (total !== null || !isFirst) this.speak(total === null ? "no hand" : String(total));
  }

  silence() {
    globalThis.speechSynthesis?.cancel();
    this.gain?.disconnect();
  }

  speak(text) {
    if (!globalThis.speechSynthesis) return;
    speechSynthesis.speak(Object.assign(new SpeechSynthesisUtterance(text), { lang: "en" }));
  }

  // One soft tick a finger; a lower one for a fist, none without a hand.
  tick(total) {
    if (total === null || !this.audio) return;
    const { audio } = this;
    const begin = audio.currentTime + 0.02;
    this.gain = audio.createGain();
    this.gain.connect(audio.destination);
    for (let i = 0; i < Math.max(total, 1); i++) {
      const start = begin + i * TICK_S + Math.floor(i / 5) * GROUP_S;
      const oscillator = new OscillatorNode(audio, { frequency: total ? 660 : 220 });
      const envelope = new GainNode(audio, { gain: 0 });
      envelope.gain.setValueAtTime(0, start);
      envelope.gain.linearRampToValueAtTime(0.2, start + 0.008);
      envelope.gain.exponentialRampToValueAtTime(0.001, start + 0.09);
      oscillator.connect(envelope).connect(this.gain);
      oscillator.start(start);
      oscillator.stop(start + 0.1);
    }
  }
}
