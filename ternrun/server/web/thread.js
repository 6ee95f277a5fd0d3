/* The conversation that is shown: all its turns, and a view that follows the end unless the reader scrolls up. */

import {$} from "./dom.js";
import {path} from "./conversation.js";
import {Message} from "./message.js";

const NEAR = 60; // pixels from the end within which the view follows it
const PAUSE = 50; // milliseconds between two drawings at the least

export class Thread {
  constructor(actions) {
    this.actions = actions;
    this.log = $("log");
    this.following = true;
    this.log.addEventListener("scroll", () => this.scrolled(), {passive: true});
    new ResizeObserver(() => this.follow()).observe(this.log);
    $("to-end").addEventListener("click", () => this.toEnd());
  }

  /** Draws a conversation from the start. `note`: what the server does, if its last turn is being answered. */
  draw(conversation, note) {
    clearTimeout(this.timer);
    this.timer = undefined;
    const focused = this.log.contains(document.activeElement);
    const shown = path(conversation).filter(i => conversation.mode === "chat" || conversation.nodes[i].role !== "user");
    this.messages = shown.map(i => new Message(conversation, i, this.actions));
    for (const message of this.messages) message.update(note !== undefined && message === this.last, note);
    this.log.replaceChildren(...this.messages.map(message => message.element));
    if (focused) this.log.focus(); // what had the focus is not there any more
    this.toEnd();
  }

  /** The last turn has grown; it is drawn when there is time. */
  grow(note) {
    this.note = note;
    this.timer ??= setTimeout(() => {
      const began = performance.now();
      this.timer = undefined;
      this.last.update(true, this.note);
      this.follow();
      this.took = performance.now() - began;
    }, Math.max(PAUSE, 4 * (this.took ?? 0)));
  }

  /** The last turn is as it stays. */
  finish() {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.last.update();
    this.follow();
  }

  get last() {
    return this.messages[this.messages.length - 1];
  }

  follow() {
    if (this.following) this.log.scrollTop = this.log.scrollHeight;
    else this.scrolled();
  }

  toEnd() {
    this.following = true;
    this.follow();
    $("to-end").hidden = true;
  }

  scrolled() {
    const {scrollHeight, scrollTop, clientHeight} = this.log;
    this.following = scrollHeight - scrollTop - clientHeight < NEAR;
    $("to-end").hidden = this.following;
  }
}
