/* Where one types. */

import {$} from "./dom.js";

const LARGEST = 1 << 20; // bytes of a file that is dropped
const TEXTS = { // mode: label, placeholder, button, keys
  chat: ["Message", "Ask something", "Send", "Enter sends, Shift+Enter begins a line"],
  text: ["Text to continue", "Begin a text", "Continue", "Ctrl+Enter continues the text"],
};

/** `actions`: {submit(), stop(), complain(sentence)}. */
export class Composer {
  constructor(actions) {
    this.actions = actions;
    this.field = $("prompt");
    $("form").addEventListener("submit", event => { event.preventDefault(); actions.submit(); });
    $("stop").addEventListener("click", () => actions.stop());
    $("attach").addEventListener("click", () => $("file").click());
    $("file").addEventListener("change", () => { this.attach([...$("file").files]); $("file").value = ""; });
    this.field.addEventListener("keydown", event => this.key(event));
    this.field.addEventListener("input", () => this.fit());
    this.field.addEventListener("dragover", event => event.preventDefault());
    this.field.addEventListener("drop", event => {
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      this.attach([...event.dataTransfer.files]);
    });
  }

  get text() {
    return this.field.value;
  }

  set text(text) {
    this.field.value = text;
    this.fit();
  }

  key(event) {
    if (event.key !== "Enter" || event.isComposing) return;
    if (event.ctrlKey || event.metaKey || ($("chat").checked && !event.shiftKey)) {
      event.preventDefault();
      this.actions.submit();
    }
  }

  /** As high as its text, within the limits of the style sheet. */
  fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight + 2}px`;
  }

  mode(mode) {
    const [label, placeholder, run, keys] = TEXTS[mode];
    $("prompt-label").textContent = label;
    this.field.placeholder = placeholder;
    $("run").textContent = run;
    $("keys").textContent = keys;
    $("system-field").hidden = mode !== "chat";
  }

  busy(on) {
    $("run").hidden = on;
    $("stop").hidden = !on;
    $("log").setAttribute("aria-busy", on);
  }

  /** Puts text files into the message, each as a code block under its name. */
  async attach(files) {
    for (const file of files) {
      const text = file.size > LARGEST ? null : new TextDecoder().decode(await file.arrayBuffer());
      if (text === null || /[\0\uFFFD]/.test(text)) {
        this.actions.complain(`${file.name} is not a text file of at most 1 MiB.`);
        continue;
      }
      const fence = "`".repeat(Math.max(3, ...[...text.matchAll(/`+/g)].map(run => run[0].length + 1)));
      const suffix = file.name.match(/\.(\w+)$/)?.[1] ?? "";
      this.text = `${this.text.trimEnd()}\n\n${file.name}:\n${fence}${suffix}\n${text.trimEnd()}\n${fence}\n`.trimStart();
    }
    this.field.focus();
  }
}
