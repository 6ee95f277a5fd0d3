/* Conversations as files. */

import {element} from "./dom.js";
import {newId, parts, path} from "./conversation.js";

/** The version that is shown, as Markdown. */
export function asMarkdown(conversation) {
  const turns = path(conversation).map(i => conversation.nodes[i]);
  if (conversation.mode === "text") {
    return turns.map(node => node.role === "user" ? node.text : `${node.text}\n\n`).join("");
  }
  const system = conversation.system ? [`## System\n\n${conversation.system}`] : [];
  const told = turns.map(node => `## ${node.role === "user" ? "User" : "Assistant"}\n\n${parts(node).said}`);
  return [`# ${conversation.title}`, ...system, ...told].join("\n\n") + "\n";
}

/** Has the browser save a text as a file. */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], {type}));
  element("a", {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

export const fileName = ({title}, suffix) => `${title.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60) || "conversation"}.${suffix}`;

/** Reads an exported conversation. Throws an error with a sentence. */
export function fromJson(text) {
  let read;
  try {
    read = JSON.parse(text);
  } catch {
    throw new Error("the file is not JSON");
  }
  const nodes = Array.isArray(read?.nodes) ? read.nodes : [];
  const good = nodes.every((node, i) => ["user", "assistant"].includes(node?.role) && typeof node.text === "string"
    && Number.isInteger(node.parent) && node.parent >= -1 && node.parent < i);
  if (!nodes.length || !good) throw new Error("the file is not an exported conversation");
  const leaf = Number.isInteger(read.leaf) && read.leaf >= 0 && read.leaf < nodes.length ? read.leaf : nodes.length - 1;
  const kept = nodes.map(({parent, role, text: said, reasoning}) =>
    ({parent, role, text: said, end: {kind: "whole"}, ...(typeof reasoning === "string" && {reasoning})}));
  return {
    id: newId(), title: String(read.title ?? "Imported").slice(0, 200), mode: read.mode === "text" ? "text" : "chat",
    system: String(read.system ?? ""), created: Date.now(), updated: 0, revision: 0, nodes: kept, leaf,
  };
}
