/* One answer: asks the server, and fills a node of the conversation with what comes. */

import {call, events} from "./client.js";
import {messages} from "./conversation.js";
import {tokensOf} from "./logprobs.js";
import {requestFields} from "./settings.js";

const known = new WeakMap();

/** The tokens of a node with their probabilities, for as long as the page is open. */
export const tokens = node => known.get(node) ?? [];

function question(conversation, index) {
  const {nodes, mode} = conversation, node = nodes[index], fields = requestFields(mode === "chat");
  if (mode === "text") return ["v1/completions", {...fields, prompt: nodes[node.parent].text + node.text}];
  const more = node.text ? {continue_final_message: true, add_generation_prompt: false} : {};
  return ["v1/chat/completions", {...fields, ...more, messages: messages(conversation, index)}];
}

/**
 * Fills node `index`; text that it has already goes on. `context`: the tokens that the model can hold.
 * `progress(text)` is called for each event, with a text while the prompt is read. At the end `node.end` says why:
 * {kind: "whole" | "word" | "length" | "context" | "stopped" | "error", ...}, and `node.stats` how fast it went.
 */
export async function generate(conversation, index, {context, signal, progress}) {
  const node = conversation.nodes[index], run = {began: performance.now(), count: 0, usage: null, reason: null};
  delete node.end;
  try {
    const [path, body] = question(conversation, index);
    for await (const event of events(await call(path, body, signal))) progress(take(node, run, event));
    node.end = ending(run, context);
  } catch (error) {
    node.end = error.name === "AbortError" ? {kind: "stopped"}
      : {kind: "error", message: error.message, status: error.status ?? 0};
  }
  if (run.count) node.stats = figures(run, context);
}

function take(node, run, event) {
  run.usage = event.usage ?? run.usage;
  run.timings = event.timings ?? run.timings;
  const choice = event.choices?.[0];
  if (!choice) return "";
  run.reason = choice.finish_reason ?? run.reason;
  run.word = choice.stop_reason ?? run.word;
  const text = choice.text ?? choice.delta?.content ?? "", thought = choice.delta?.reasoning_content ?? "";
  const more = tokensOf(choice.logprobs);
  if (text || thought || more.length) {
    run.first ??= performance.now();
    run.last = performance.now();
    run.count += more.length || 1;
  }
  node.text += text;
  if (thought) node.reasoning = (node.reasoning ?? "") + thought;
  if (more.length) known.set(node, [...tokens(node), ...more]);
  const read = event.prompt_progress;
  return read && read.processed < read.total ? `reading ${read.processed} of ${read.total} tokens` : "";
}

function ending({reason, word, usage, count}, context) {
  if (reason !== "length") return typeof word === "string" ? {kind: "word", word} : {kind: "whole"};
  if (usage && context && usage.total_tokens >= context) return {kind: "context", tokens: context};
  return {kind: "length", tokens: usage?.completion_tokens ?? count};
}

function figures({began, first, last, count, usage, timings}, context) {
  const made = usage?.completion_tokens ?? count, seconds = (last - first) / 1000;
  const rate = timings?.predicted_per_second ?? (seconds > 0 ? (made - 1) / seconds : 0);
  return {tokens: made, rate, first: (first - began) / 1000, used: usage?.total_tokens, context};
}

const number = value => value.toLocaleString("en", {maximumFractionDigits: value < 100 ? 1 : 0});

const counted = count => `${number(count)} token${count === 1 ? "" : "s"}`;

/** Figures of an answer, as a line of text. */
export function statsLine({tokens: made, rate, first, used, context}) {
  const line = [counted(made)];
  if (rate) line.push(`${number(rate)} tokens/s`);
  line.push(`first after ${first.toFixed(2)} s`);
  if (used && context) line.push(`context ${number(used)} of ${number(context)}`);
  return line.join(" · ");
}

/** Why an answer ended, as a sentence; empty where it ended by itself. */
export function endLine(end) {
  switch (end?.kind) {
    case "whole": return "";
    case "word": return `Ended at the stop string “${end.word}”.`;
    case "length": return `Cut at ${counted(end.tokens)}.`;
    case "context": return `The context of ${number(end.tokens)} tokens is full. Start a new conversation.`;
    case "stopped": return "Stopped by you.";
    case "error": return sentence(end);
    default: return "Interrupted, or still being written in another tab.";
  }
}

function sentence({message, status}) {
  const text = message[0].toUpperCase() + message.slice(1).replace(/\.?$/, ".");
  if (status === 401) return `${text} Type it under Settings.`;
  return status === 429 || status === 503 ? `${text} The server is busy; try again in a moment.` : text;
}
