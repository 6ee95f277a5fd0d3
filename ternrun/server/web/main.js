/* The page: joins the server, the conversation, and what the user does. */

import {$, say} from "./dom.js";
import {call} from "./client.js";
import {endLine, generate} from "./answer.js";
import {Composer} from "./composer.js";
import {Connection} from "./connection.js";
import {add, choose, newConversation, parts} from "./conversation.js";
import {closeDrawers, openPanel, startPanels} from "./panels.js";
import {keep, kept, showDefaults, startSettings} from "./settings.js";
import {Sidebar} from "./sidebar.js";
import {Store} from "./store.js";
import {Thread} from "./thread.js";
import {Tip} from "./tokens.js";
import {asMarkdown, download, fileName, fromJson} from "./transfer.js";

const SAVE = 2000; // milliseconds between two savings of an answer that grows

let current = newConversation("chat", "");
let running = null; // what ends the answer that is being made
let context = 0; // tokens that the model holds

const store = new Store({changed: changedElsewhere, failed: complain});
const connection = new Connection(arrived);
const sidebar = new Sidebar({open, rename});
const thread = new Thread({edit, again, goOn, choose: chooseVersion});
const composer = new Composer({submit, stop: () => running?.abort(), complain});
const tip = new Tip($("log"));
const mode = () => $("chat").checked ? "chat" : "text";

/** Tells what went wrong, until it is dismissed. */
function complain(sentence) {
  $("notice-text").textContent = sentence;
  $("notice").hidden = false;
}

/** The server is ready: what models there are, and their defaults. */
async function arrived() {
  const chosen = $("model").value || kept("localStorage", "ternrun model");
  const listed = (await (await call("v1/models")).json()).data.map(model => model.id);
  $("model").replaceChildren(...listed.map(id => new Option(id, id, false, id === chosen)));
  const query = `?model=${encodeURIComponent($("model").value)}`;
  const props = await (await call("props" + query)).json();
  const document_ = await (await call("openapi.json" + query)).json();
  const body = document_.paths["/v1/chat/completions"].post.requestBody;
  showDefaults(body.content["application/json"].schema.properties);
  context = props.default_generation_settings.n_ctx;
  $("chat").disabled = !props.chat_template;
  $("no-chat").hidden = Boolean(props.chat_template);
  if (!props.chat_template && mode() === "chat" && !current.nodes.length) setMode("text");
}

function setMode(name) {
  $(name === "chat" ? "chat" : "text").checked = true;
  composer.mode(name);
  $("log").dataset.mode = current.mode = name;
}

async function drawList() {
  sidebar.draw(await store.all(), current);
}

/** Shows a conversation in place of the one that is open. */
async function show(conversation) {
  running?.abort();
  await store.queue;
  current = conversation;
  if (current.nodes.length) $("system").value = current.system;
  keep("sessionStorage", "conversation", current.id);
  setMode(current.mode);
  tip.show(null);
  thread.draw(current);
  await drawList();
}

async function open(id) {
  const found = await store.get(id);
  if (found) await show(found);
  closeDrawers();
}

async function start(name = mode()) {
  await show(newConversation($("chat").disabled ? "text" : name, $("system").value));
  closeDrawers();
  $("prompt").focus();
}

async function rename(title) {
  current.title = title;
  await store.save(current);
  await drawList();
}

async function remove() {
  const removed = current;
  running?.abort();
  await store.remove(removed.id);
  await start(removed.mode);
  sidebar.offerUndo(removed.title, async () => {
    removed.revision = 0;
    await store.save(removed);
    await show(removed);
  });
}

/** Another tab has saved or removed a conversation. */
async function changedElsewhere(id) {
  if (id === current.id && !running && !$("log").querySelector(".edit")) {
    const found = await store.get(id);
    if (found && found.revision !== current.revision) await show(found);
  }
  await drawList();
}

async function importFile() {
  try {
    const read = fromJson(await $("import-file").files[0].text());
    await store.save(read);
    await show(read);
  } catch (error) {
    complain(`The conversation could not be imported: ${error.message}.`);
  }
  $("import-file").value = "";
}

/** Has node `index` filled, and shows it meanwhile. */
async function answer(index) {
  const conversation = current, node = conversation.nodes[index];
  const mine = running = new AbortController();
  const saving = setInterval(() => store.save(conversation), SAVE);
  tip.show(null);
  thread.draw(conversation, "waiting for the first token");
  composer.busy(true);
  await store.save(conversation);
  await drawList();
  await generate(conversation, index, {
    context, signal: mine.signal, progress: note => { if (conversation === current) thread.grow(note); },
  });
  clearInterval(saving);
  running = null;
  composer.busy(false);
  if (conversation === current) thread.finish();
  say(`${endLine(node.end) || "The answer is complete."} ${parts(node).said}`);
  await store.save(conversation);
  keep("sessionStorage", "conversation", current.id);
  await drawList();
  if (node.end.kind === "error") failed(node.end);
}

function failed({status}) {
  if (status === 401 || status === 0 || status >= 502) connection.again();
}

function submit() {
  const text = composer.text;
  if (running || !text.trim()) return;
  current.system = $("system").value;
  if (mode() === "chat") composer.text = "";
  $("prompt").focus();
  answer(add(current, add(current, current.leaf, "user", text), "assistant", ""));
}

function edit(index, text) {
  if (running) return;
  const question = add(current, current.nodes[index].parent, "user", text);
  answer(add(current, question, "assistant", ""));
}

/** Another answer to the same turn. One that failed before it said anything is filled itself. */
function again(index) {
  if (running) return;
  const node = current.nodes[index];
  current.system = $("system").value;
  answer(node.text || node.reasoning ? add(current, node.parent, "assistant", "") : index);
}

function goOn(index) {
  if (!running) answer(index);
}

async function chooseVersion(index) {
  if (running) return;
  choose(current, index);
  thread.draw(current);
  await store.save(current);
}

function listen() {
  for (const name of ["chat", "text"]) {
    $(name).addEventListener("change", () => current.nodes.length ? start(name) : setMode(name));
  }
  $("new").addEventListener("click", () => start());
  $("delete").addEventListener("click", remove);
  $("export-markdown").addEventListener("click", () =>
    download(fileName(current, "md"), "text/markdown", asMarkdown(current)));
  $("export-json").addEventListener("click", () =>
    download(fileName(current, "json"), "application/json", JSON.stringify(current, null, 1)));
  $("import").addEventListener("click", () => $("import-file").click());
  $("import-file").addEventListener("change", importFile);
  $("dismiss").addEventListener("click", () => { $("notice").hidden = true; });
  $("probabilities").addEventListener("change", () => thread.draw(current));
  $("model").addEventListener("change", () => {
    keep("localStorage", "ternrun model", $("model").value);
    connection.again();
  });
  document.addEventListener("keydown", event => {
    if (event.key === "Escape" && !closeDrawers()) running?.abort();
  });
  document.addEventListener("connection", event => {
    if (event.detail !== "key") return;
    openPanel("settings");
    $("key").focus();
  });
}

startPanels();
startSettings(() => connection.again());
listen();
await store.open();
const last = await store.get(kept("sessionStorage", "conversation") ?? "");
await show(last ?? newConversation("chat", ""));
connection.check();
