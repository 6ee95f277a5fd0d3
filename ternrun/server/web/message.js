/* How one turn of a conversation looks. */

import {$, button, copy, element} from "./dom.js";
import {endLine, statsLine, tokens} from "./answer.js";
import {parts, versions} from "./conversation.js";
import {render} from "./markdown.js";
import {TokenView} from "./tokens.js";

const GOES_ON = ["length", "stopped", "error", undefined]; // ends after which an answer can be continued

/** `actions`: {edit, again, goOn, choose}, functions of a node's index. */
export class Message {
  constructor(conversation, index, actions) {
    Object.assign(this, {conversation, index, actions, node: conversation.nodes[index]});
    const chat = conversation.mode === "chat", mine = this.node.role === "user";
    this.body = element("div", {className: "body"});
    this.foot = element("div", {className: "foot"});
    this.element = element("article", {className: `message ${mine ? "user" : chat ? "assistant" : "assistant whole"}`},
      element("h3", {}, mine ? "You" : chat ? "Model" : "Text"), this.body, this.foot);
    if (!mine && !chat) {
      this.body.append(element("span", {className: "given"}, conversation.nodes[this.node.parent].text));
    }
    if (!mine && chat) this.addReasoning();
  }

  addReasoning() {
    this.thoughts = element("div", {className: "markdown"});
    this.summary = element("summary");
    this.reasoning = element("details", {className: "reasoning", hidden: true}, this.summary, this.thoughts);
    this.body.before(this.reasoning);
  }

  /** Draws what has changed. `running`: more of it is to come; `note`: what the server does meanwhile. */
  update(running = false, note = "") {
    this.element.classList.toggle("running", running);
    if (this.node.role === "user") this.plain(this.node.text);
    else if ($("probabilities").checked && tokens(this.node).length) this.drawTokens();
    else if (this.conversation.mode === "text") this.plain(this.node.text);
    else this.drawMarkdown(running);
    if (!running) this.drawFoot();
    else this.foot.replaceChildren(element("span", {className: "figures"}, note));
  }

  plain(text) {
    this.text ??= this.body.appendChild(document.createTextNode(""));
    this.body.classList.add("plain");
    this.body.dir = "auto";
    this.text.data = text;
  }

  drawTokens() {
    if (!this.view) {
      this.text?.remove();
      this.body.querySelector(".markdown")?.remove();
      const spans = this.body.appendChild(element("span", {className: "shaded"}));
      this.view = new TokenView(spans);
    }
    this.body.classList.add("plain");
    this.view.update(this.node.text, tokens(this.node));
  }

  drawMarkdown(running) {
    const {reasoning, open, said} = parts(this.node);
    this.reasoning.hidden = !reasoning;
    if (reasoning) {
      this.summary.textContent = running && (open || !said) ? "Reasoning …" : "Reasoning";
      if (this.reasoning.open || !running) render(this.thoughts, reasoning, !running);
    }
    this.markdown ??= this.body.appendChild(element("div", {className: "markdown"}));
    render(this.markdown, said, !running);
  }

  drawFoot() {
    const {node, foot} = this;
    foot.replaceChildren(...(node.role === "user" ? [] : this.ending()), this.buttons());
    if (node.stats && node.role !== "user") foot.append(element("span", {className: "figures"}, statsLine(node.stats)));
  }

  ending() {
    const {node, index, actions} = this, line = endLine(node.end), kind = node.end?.kind;
    if (!line) return [];
    const made = element("p", {className: `end ${kind === "error" ? "bad" : ""}`}, element("span", {}, line));
    if (kind === "error") made.append(button("Try again", () => actions.again(index), {className: ""}));
    if (GOES_ON.includes(kind) && node.text) made.append(button("Go on", () => actions.goOn(index), {className: ""}));
    return [made];
  }

  buttons() {
    const {node, index, actions} = this, mine = node.role === "user";
    const bar = element("div", {className: "actions"});
    const all = versions(this.conversation, index), at = all.indexOf(index);
    if (all.length > 1) {
      bar.append(
        button("‹", () => actions.choose(all[at - 1]), {disabled: at === 0, ariaLabel: "Earlier version"}),
        element("span", {className: "count"}, `${at + 1}/${all.length}`),
        button("›", () => actions.choose(all[at + 1]), {disabled: at === all.length - 1, ariaLabel: "Later version"}),
      );
    }
    if (node.text) bar.append(button("Copy", event => copy(parts(node).said, event.target)));
    if (mine) bar.append(button("Edit", () => this.edit()));
    else if (node.text || node.reasoning) bar.append(button("Regenerate", () => actions.again(index), {title: "Another answer; this one is kept"}));
    return bar;
  }

  /** The text in a field of its own; what is sent becomes another version, and the conversation goes on from there. */
  edit() {
    const field = element("textarea", {value: this.node.text, rows: 3, ariaLabel: "Edit the message", dir: "auto"});
    const close = () => { box.remove(); this.body.hidden = this.foot.hidden = false; };
    const send = () => { if (field.value.trim()) { close(); this.actions.edit(this.index, field.value); } };
    const box = element("div", {className: "edit"}, field, element("div", {className: "bar"},
      button("Cancel", close), button("Send", send, {className: "primary"})));
    field.addEventListener("keydown", event => {
      if (event.key === "Escape") { event.stopPropagation(); close(); }
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
    });
    this.body.hidden = this.foot.hidden = true;
    this.body.before(box);
    field.focus();
  }
}
