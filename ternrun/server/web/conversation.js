/* A conversation: its turns form a tree, so that an edited or repeated turn keeps its earlier versions. */

const hex = bytes => [...bytes].map(byte => byte.toString(16).padStart(2, "0")).join("");

/** A name for a conversation that no other has. (crypto.randomUUID needs TLS.) */
export const newId = () => hex(crypto.getRandomValues(new Uint8Array(12)));

/**
 * A new conversation. `nodes`: {parent, role, text, reasoning?, end?, stats?}, where `parent` is an index and -1 the
 * root; `leaf`: the last node of the version that is shown; `revision`: counts what the store has saved.
 */
export function newConversation(mode, system) {
  return {id: newId(), title: "", mode, system, created: Date.now(), updated: 0, revision: 0, nodes: [], leaf: -1};
}

/** Adds a node behind `parent` and shows it; returns its index. */
export function add(conversation, parent, role, text) {
  conversation.leaf = conversation.nodes.push({parent, role, text}) - 1;
  if (!conversation.title) conversation.title = titleOf(text);
  return conversation.leaf;
}

const titleOf = text => text.trim().split("\n")[0].slice(0, 80);

/** Indices of the nodes that are shown, in order, up to `last`. */
export function path({nodes, leaf}, last = leaf) {
  const found = [];
  for (let at = last; at >= 0; at = nodes[at].parent) found.unshift(at);
  return found;
}

/** Indices of all versions of a node, itself included. */
export function versions({nodes}, index) {
  return nodes.flatMap((node, i) => node.parent === nodes[index].parent ? [i] : []);
}

/** Shows another version of a node, and what came after it last. */
export function choose(conversation, index) {
  for (let next = index; next >= 0;) {
    conversation.leaf = next;
    next = conversation.nodes.findLastIndex(node => node.parent === next);
  }
}

const THINKING = /^\s*<think>([\s\S]*?)(?:<\/think>\s*|$)/;

/** An answer's reasoning, whether it has ended, and what it says after that. */
export function parts({text, reasoning = ""}) {
  const found = text.match(THINKING);
  const said = found ? text.slice(found[0].length) : text;
  return {reasoning: reasoning + (found?.[1] ?? ""), open: Boolean(found && !found[0].includes("</think>")), said};
}

const unanswered = node => node.role === "assistant" && !node.text && !node.reasoning;

/**
 * The messages to send for an answer at node `index`; where that has text, the text goes on.
 * Turns that got no answer are left out, and so is the reasoning of earlier answers.
 */
export function messages(conversation, index) {
  const {nodes, system} = conversation, shown = path(conversation, index), sent = [];
  shown.slice(0, -1).forEach((at, i) => {
    const node = nodes[at], next = nodes[shown[i + 1]];
    const failed = unanswered(node) || (unanswered(next) && next !== nodes[index]);
    if (!failed) sent.push({role: node.role, content: node.role === "user" ? node.text : parts(node).said});
  });
  if (nodes[index].text) sent.push({role: "assistant", content: nodes[index].text});
  return system ? [{role: "system", content: system}, ...sent] : sent;
}
