/* Small helpers for the document. */

/** The element with that id. */
export const $ = id => document.getElementById(id);

/** A new element: its properties, then its children (elements or text). */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A button with a text on it. */
export const button = (text, onclick, properties = {}) =>
  element("button", {type: "button", className: "quiet", onclick, ...properties}, text);

/** Copies a text and says so on the button for a moment. */
export async function copy(text, on) {
  const before = on.dataset.label ??= on.textContent;
  try {
    await navigator.clipboard.writeText(text);
    on.textContent = "Copied";
  } catch {
    on.textContent = copyBySelection(text) ? "Copied" : "Not copied";
  }
  say(on.textContent);
  setTimeout(() => { on.textContent = before; }, 1500);
}

/** The way for pages without TLS from another machine, where browsers offer no clipboard. */
function copyBySelection(text) {
  const area = element("textarea", {value: text, className: "hidden"});
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return done;
}

/** Tells a text to screen readers. */
export function say(text) {
  $("spoken").textContent = text;
}
