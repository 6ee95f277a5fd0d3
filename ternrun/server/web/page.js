/* What the user does. */

const NUMBERS = ["max_tokens", "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "frequency_penalty",
  "presence_penalty", "seed"];
const LIKELIEST = 5;

const talk = []; // {role, content}
const tip = new Tip($("log"), $("spoken"));
let running = null;

function settings() {
  const body = {stream: true, stream_options: {include_usage: true}};
  if ($("model").value) body.model = $("model").value;
  for (const name of NUMBERS) if ($(name).value !== "") body[name] = Number($(name).value);
  const stop = $("stops").value.split("\n").filter(line => line);
  return stop.length ? {...body, stop} : body;
}

function question(prompt) {
  const told = $("probabilities").checked;
  if (!$("chat").checked) return ["v1/completions", {...settings(), prompt, ...(told && {logprobs: LIKELIEST})}];
  const system = $("system").value ? [{role: "system", content: $("system").value}] : [];
  const logprobs = told ? {logprobs: true, top_logprobs: LIKELIEST} : {};
  return ["v1/chat/completions", {...settings(), messages: [...system, ...talk], ...logprobs}];
}

function message(role, title, text) {
  const box = document.createElement("article"), head = document.createElement("h2");
  box.className = `message ${role}`;
  head.textContent = title;
  box.append(head, text);
  $("log").append(box);
  return box;
}

function follow() {
  const log = $("log");
  if (log.scrollHeight - log.scrollTop - log.clientHeight < 120) log.scrollTop = log.scrollHeight;
}

/** Tokens so far and their speed, a few times a second. */
class Speed {
  constructor() {
    this.began = performance.now();
    this.first = this.shown = 0;
  }

  show(count, last = false) {
    const now = performance.now();
    this.first ||= now;
    if (!last && now - this.shown < 200) return;
    this.shown = now;
    const seconds = (now - this.first) / 1000;
    const rate = seconds > 0 && count > 1 ? `, ${((count - 1) / seconds).toFixed(1)} a second` : "";
    $("speed").textContent = `${count} tokens${rate}, the first after ${((this.first - this.began) / 1000).toFixed(2)} s`;
  }
}

async function ask(answer, prompt) {
  const [path, body] = question(prompt), speed = new Speed();
  let reason = "", usage = null;
  for await (const event of events(await call(path, body, running.signal))) {
    usage = event.usage ?? usage;
    const choice = event.choices[0];
    if (!choice) continue;
    reason = choice.finish_reason ?? reason;
    answer.add(choice.text ?? choice.delta.content ?? "", tokens(choice.logprobs));
    if (answer.count) speed.show(answer.count);
    follow();
  }
  speed.show(usage?.completion_tokens ?? answer.count, true);
  return reason;
}

function busy(on) {
  $("run").disabled = on;
  $("stop").disabled = !on;
  $("clear").disabled = on;
  $("retry").disabled = on || !$("log").children.length;
  $("log").setAttribute("aria-busy", on);
}

/** Ask for one answer to `talk`, or for the text that follows `prompt`, and show it. */
async function go(prompt) {
  const box = $("chat").checked ? message("assistant", "Model", "") : message("assistant whole", "Text", "");
  if (!$("chat").checked) {
    const given = document.createElement("span");
    given.className = "given";
    given.textContent = prompt;
    box.append(given);
  }
  const answer = new Answer(box);
  running = new AbortController();
  box.classList.add("running", "shaded");
  $("notice").hidden = true;
  $("speed").textContent = "waiting for the first token";
  tip.show(null);
  busy(true);
  let end = "";
  try {
    end = {length: "the answer was cut off"}[await ask(answer, prompt)] ?? "the answer is complete";
  } catch (error) {
    end = error.name === "AbortError" ? "stopped" : error.message;
    if (error.name !== "AbortError") complain(error);
  }
  running = null;
  box.classList.remove("running");
  if ($("chat").checked && answer.text) talk.push({role: "assistant", content: answer.text});
  if (!answer.text) box.remove();
  busy(false);
  $("spoken").textContent = `${end}: ${answer.text}`;
  return answer.text;
}

function complain(error) {
  $("notice").textContent = error.status === 401 ? `${error.message}. Type it under Settings.` : error.message;
  $("notice").hidden = false;
  if (error.status === 401) $("key").focus();
}

async function submit() {
  const prompt = $("prompt").value;
  if (running || !prompt) return;
  if (!$("chat").checked) return void await go(prompt);
  talk.push({role: "user", content: prompt});
  const box = message("user", "You", prompt);
  $("prompt").value = "";
  box.scrollIntoView({block: "nearest"});
  if (!await go() && talk[talk.length - 1].content === prompt) { // it was not answered: give it back
    talk.pop();
    box.remove();
    $("prompt").value ||= prompt;
  }
  busy(false);
}

async function again() {
  const boxes = $("log").querySelectorAll(".assistant");
  boxes[boxes.length - 1]?.remove();
  if (!$("chat").checked) return void await go($("prompt").value);
  if (talk[talk.length - 1]?.role === "assistant") talk.pop();
  if (talk.length) await go();
}

function clear() {
  talk.length = 0;
  $("log").replaceChildren();
  $("notice").hidden = true;
  $("speed").textContent = "";
  tip.show(null);
  busy(false);
  $("prompt").focus();
}

function choose() {
  const chat = $("chat").checked;
  $("prompt-label").textContent = chat ? "Message" : "Text to continue";
  $("prompt").placeholder = chat ? "Ask something" : "Begin a text";
  $("run").textContent = chat ? "Send" : "Continue";
  $("keys").textContent = chat ? "Enter sends, Shift+Enter begins a line" : "Ctrl+Enter continues the text";
  $("system-field").hidden = !chat;
  clear();
}

/** Wait until the server is ready; ask it what it has. */
async function connect() {
  const state = (text, kind) => { $("state").textContent = text; $("state").className = `state ${kind}`; };
  try {
    while (true) {
      const health = await fetch("health");
      if (health.ok) break;
      state("loading the model", "");
      await new Promise(resolve => setTimeout(resolve, 500));
    }
    const listed = await (await call("v1/models")).json();
    $("model").replaceChildren(...listed.data.map(model => new Option(model.id, model.id)));
    const props = await (await call("props")).json();
    $("chat").disabled = !props.chat_template;
    if (!props.chat_template && $("chat").checked) {
      $("text").checked = true;
      choose();
    }
    state(props.chat_template ? "ready" : "ready; this model cannot chat, it continues text", "ready");
    if (!$("notice").hidden) $("notice").hidden = true;
  } catch (error) {
    state(error.status === 401 ? "an API key is needed" : "no connection", "failed");
    if (error.status === 401) complain(error);
  }
}

$("form").addEventListener("submit", event => { event.preventDefault(); submit(); });
$("stop").addEventListener("click", () => running?.abort());
$("clear").addEventListener("click", clear);
$("retry").addEventListener("click", again);
$("key").addEventListener("change", connect);
for (const mode of ["chat", "text"]) $(mode).addEventListener("change", choose);
document.addEventListener("keydown", event => { if (event.key === "Escape") running?.abort(); });
$("prompt").addEventListener("keydown", event => {
  if (event.key !== "Enter" || event.isComposing) return;
  if (event.ctrlKey || event.metaKey || ($("chat").checked && !event.shiftKey)) {
    event.preventDefault();
    $("form").requestSubmit();
  }
});
connect();
