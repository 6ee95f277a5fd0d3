/* Whether the server is there: asked now and then, and at once when a request fails. */

import {$} from "./dom.js";
import {Problem, call} from "./client.js";

const CALM = 15_000, LOADING = 700, FIRST = 1000, LONGEST = 30_000; // milliseconds between two questions
const STATES = { // class of the dot, text
  connecting: ["", "connecting"],
  loading: ["", "loading the model"],
  ready: ["ready", "ready"],
  key: ["failed", "an API key is needed"],
  closing: ["failed", "the server is shutting down"],
  gone: ["failed", "the server is gone; trying again"],
};

export class Connection {
  /** `arrived()`: asks the server what it has; called whenever it becomes ready. May throw Problem. */
  constructor(arrived) {
    this.arrived = arrived;
    this.state = "connecting";
    this.wait = FIRST;
    addEventListener("online", () => this.check());
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.check(); });
    $("reconnect").addEventListener("click", () => this.check());
  }

  /** Finds out now, and goes on asking. */
  async check() {
    clearTimeout(this.timer);
    const state = await this.find();
    this.show(state);
    this.wait = state === "gone" || state === "closing" ? Math.min(this.wait * 2, LONGEST) : FIRST;
    const pause = {ready: CALM, loading: LOADING, key: 0}[state] ?? this.wait / 2;
    clearTimeout(this.timer);
    if (pause && !(document.hidden && state === "ready")) this.timer = setTimeout(() => this.check(), pause);
    return state;
  }

  async find() {
    try {
      await call("health");
      if (this.state !== "ready") await this.arrived();
      return "ready";
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status === 401) return "key";
      if (error.status === 503) return error.message.includes("shutting down") ? "closing" : "loading";
      return "gone";
    }
  }

  /** A key was typed, or another model chosen: ask again what there is. */
  again() {
    this.state = "connecting";
    return this.check();
  }

  show(state) {
    if (state === this.state && $("state").textContent === STATES[state][1]) return;
    this.state = state;
    const [kind, text] = STATES[state];
    $("state").className = `state ${kind}`;
    $("state").textContent = text;
    $("reconnect").hidden = state !== "gone" && state !== "closing";
    document.dispatchEvent(new CustomEvent("connection", {detail: state}));
  }
}
