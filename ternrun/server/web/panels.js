/* The two panels beside the conversation, and the colours. On a narrow screen a panel lies over the page. */

import {$} from "./dom.js";
import {keep, kept} from "./settings.js";

const PANELS = {conversations: "open-list", settings: "open-settings"}; // panel: the button that opens it
const ROOM = {conversations: "(min-width: 56rem)", settings: "(min-width: 72rem)"}; // where it is open from the start
const THEMES = ["auto", "light", "dark"];

export function startPanels() {
  for (const [panel, opener] of Object.entries(PANELS)) {
    $(opener).addEventListener("click", () => { if (toggle(panel)) focusFirst(panel); });
    const room = matchMedia(ROOM[panel]);
    room.addEventListener("change", () => toggle(panel, room.matches));
    toggle(panel, room.matches);
  }
  $("shade").addEventListener("click", closeDrawers);
  for (const close of document.querySelectorAll(".close")) close.addEventListener("click", closeDrawers);
  $("theme").addEventListener("change", () => setTheme($("theme").value));
  setTheme(kept("localStorage", "ternrun theme") ?? "auto");
}

function focusFirst(panel) {
  if (isDrawer(panel)) $(panel).querySelector("button, input, select, textarea")?.focus();
}

const isDrawer = panel => !matchMedia(ROOM[panel]).matches;

/** Opens or closes a panel; returns whether it is open now. */
function toggle(panel, open = $(panel).hidden) {
  $(panel).hidden = !open;
  $(PANELS[panel]).setAttribute("aria-expanded", open);
  const over = Object.keys(PANELS).filter(name => !$(name).hidden && isDrawer(name));
  if (open && over.length > 1) toggle(over.find(name => name !== panel), false);
  $("shade").hidden = !over.length;
  $("stage").inert = over.length > 0;
  return open;
}

/** Shows a panel. */
export const openPanel = panel => toggle(panel, true);

/** Closes what lies over the page; returns whether anything did. */
export function closeDrawers() {
  const over = Object.keys(PANELS).filter(name => !$(name).hidden && isDrawer(name));
  for (const panel of over) {
    toggle(panel, false);
    $(PANELS[panel]).focus();
  }
  return over.length > 0;
}

function setTheme(theme) {
  const known = THEMES.includes(theme) ? theme : "auto";
  document.documentElement.dataset.theme = $("theme").value = known;
  keep("localStorage", "ternrun theme", known);
}
