/* The form of settings. An empty field means the server's and the model's own default, which it shows. */

import {$} from "./dom.js";
import {setKey} from "./client.js";

const NUMBERS = ["max_tokens", "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "frequency_penalty",
  "presence_penalty", "seed"];
const NOTHING = {max_tokens: "no limit", seed: "random"}; // what the absence of a default means
const KEPT = [...NUMBERS, "stops"];
const PLACE = "ternrun settings";
const LIKELIEST = 5;

let unlimited = true; // whether the server sets no length of its own

/** localStorage or sessionStorage, which throw where they are blocked. */
export function keep(storage, name, value) {
  try {
    window[storage].setItem(name, value);
  } catch { /* kept until the page is closed */ }
}

export function kept(storage, name) {
  try {
    return window[storage].getItem(name);
  } catch {
    return null;
  }
}

/** Fills the form with what it held last time. `keyChanged` is called when a key has been typed. */
export function startSettings(keyChanged) {
  const values = JSON.parse(kept("localStorage", PLACE) ?? "{}");
  for (const name of KEPT) $(name).value = values[name] ?? "";
  $("key").value = kept("sessionStorage", "key") ?? "";
  setKey($("key").value);
  $("settings").addEventListener("input", save);
  $("key").addEventListener("change", () => {
    setKey($("key").value.trim());
    keep("sessionStorage", "key", $("key").value.trim());
    keyChanged();
  });
  $("defaults").addEventListener("click", () => {
    for (const name of KEPT) $(name).value = "";
    save();
  });
}

function save() {
  keep("localStorage", PLACE, JSON.stringify(Object.fromEntries(KEPT.map(name => [name, $(name).value]))));
}

/** Shows the defaults: the properties of a request to the chat route, as /openapi.json has them. */
export function showDefaults(properties) {
  for (const name of NUMBERS) {
    const value = properties[name]?.default;
    $(name).placeholder = value === undefined ? NOTHING[name] ?? "" : String(value);
  }
  unlimited = properties.max_tokens?.default === undefined;
}

/** The fields of a request that do not depend on the conversation. Throws an error that names a wrong field. */
export function requestFields(chat) {
  const body = {stream: true, stream_options: {include_usage: true}, return_progress: true};
  if ($("model").value) body.model = $("model").value;
  if (!chat && unlimited) body.max_tokens = -1; // this route would end after 16 tokens
  for (const name of NUMBERS) {
    const field = $(name);
    if (!field.checkValidity()) throw new Error(`${field.labels[0].textContent}: ${field.validationMessage}`);
    if (field.value !== "") body[name] = Number(field.value);
  }
  const stop = $("stops").value.split("\n").filter(line => line);
  if (stop.length) body.stop = stop;
  if (!$("probabilities").checked) return body;
  return {...body, ...(chat ? {logprobs: true, top_logprobs: LIKELIEST} : {logprobs: LIKELIEST})};
}
