/* The list of conversations, and what can be done with the one that is open. */

import {$, button, element, say} from "./dom.js";

const UNDO = 15_000; // milliseconds

/** `actions`: {open(id), rename(title)}. */
export class Sidebar {
  constructor(actions) {
    this.actions = actions;
    document.addEventListener("click", event => {
      if (!$("menu").contains(event.target) || event.target.closest("button")) $("menu").open = false;
    });
    $("menu").addEventListener("keydown", event => {
      if (event.key !== "Escape" || !$("menu").open) return;
      event.stopPropagation();
      $("menu").open = false;
      $("menu").querySelector("summary").focus();
    });
    $("rename").addEventListener("click", () => this.rename());
  }

  draw(conversations, current) {
    const focused = $("list").contains(document.activeElement);
    $("list").replaceChildren(...conversations.map(one => {
      const name = button(one.title || "Untitled", () => this.actions.open(one.id), {className: "name", dir: "auto"});
      if (one.id === current.id) name.setAttribute("aria-current", "true");
      return element("li", {}, name);
    }));
    if (focused) $("list").querySelector("[aria-current]")?.focus();
    $("none").hidden = conversations.length > 0;
    $("title").textContent = current.title || (current.mode === "chat" ? "New chat" : "New text");
    for (const name of ["rename", "export-markdown", "export-json", "delete"]) $(name).disabled = !current.nodes.length;
  }

  rename() {
    const title = $("title"), field = element("input", {id: "new-title", value: title.textContent, maxLength: 200});
    field.setAttribute("aria-label", "New title");
    let open = true;
    const close = kept => {
      if (!open) return;
      open = false;
      field.replaceWith(title);
      if (kept && field.value.trim()) this.actions.rename(field.value.trim());
    };
    field.addEventListener("keydown", event => {
      if (event.key === "Enter" || event.key === "Escape") { event.stopPropagation(); close(event.key === "Enter"); }
    });
    field.addEventListener("blur", () => close(true));
    title.replaceWith(field);
    field.select();
  }

  /** Offers to take back a deletion for a while. */
  offerUndo(title, undo) {
    clearTimeout(this.timer);
    const hide = () => $("toast").replaceChildren();
    $("toast").replaceChildren(element("span", {}, `Deleted “${title}”.`), button("Undo", () => { hide(); undo(); }));
    say(`Deleted ${title}. It can be undone.`);
    this.timer = setTimeout(hide, UNDO);
  }
}
