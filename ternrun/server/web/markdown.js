/* Markdown to elements. marked reads it, highlight.js colours code, and DOMPurify lets only known markup through. */

import DOMPurify from "./vendor/dompurify/purify.es.mjs";
import hljs from "./vendor/highlight/highlight.min.js";
import {Marked} from "./vendor/marked/marked.esm.js";
import {button, copy, element} from "./dom.js";

const LONG = 30_000; // characters of code that are coloured only when the answer is complete
const escapes = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"};
const escaped = text => text.replace(/[&<>"']/g, sign => escapes[sign]);

const SAFE = {
  ALLOWED_TAGS: ["p", "br", "hr", "h4", "h5", "h6", "strong", "em", "del", "code", "pre", "blockquote", "ul", "ol", "li",
    "table", "thead", "tbody", "tr", "th", "td", "a", "span"],
  ALLOWED_ATTR: ["href", "title", "class", "start", "align"],
  ADD_URI_SAFE_ATTR: ["align", "start"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_DOM_FRAGMENT: true,
};

DOMPurify.addHook("uponSanitizeAttribute", (_node, data) => {
  if (data.attrName === "class") data.keepAttr = /^(hljs|language-|title-)[\w- ]*$/.test(data.attrValue);
});
DOMPurify.addHook("afterSanitizeAttributes", node => {
  if (node.nodeName !== "A" || !node.hasAttribute("href")) return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

/** The known markup of a text, as elements. */
export const sanitize = html => DOMPurify.sanitize(html, SAFE);

let complete = true; // whether the text that is being rendered has ended
let highest = 1; // the depth of its highest heading

const renderer = {
  code({text, lang}) {
    const language = (lang ?? "").match(/^[\w+#-]*/)[0].toLowerCase();
    const known = hljs.getLanguage(language) && (complete || text.length < LONG);
    const inner = known ? hljs.highlight(text, {language, ignoreIllegals: true}).value : escaped(text);
    return `<pre><code class="hljs${language ? ` language-${escaped(language)}` : ""}">${inner}\n</code></pre>`;
  },
  heading({tokens, depth}) { // below the headings of the page itself
    const tag = `h${Math.min(depth - highest + 4, 6)}`;
    return `<${tag} class="title-${depth}">${this.parser.parseInline(tokens)}</${tag}>`;
  },
  html({text}) { return escaped(text); }, // shown as it was written
  image({href, text}) { return `<a href="${escaped(href)}">${escaped(text || href)}</a>`; }, // never loaded
  checkbox({checked}) { return checked ? "☑ " : "☐ "; },
};
const marked = new Marked({gfm: true, renderer});

/** A last line that could still become a fence, a rule, a heading or a table is held back until more of it is there. */
const UNDECIDED = /\n[ \t]*(?:`{1,2}|~{1,2}|[-=]+|\|[ :|-]*)$/;

/** Shows `text` in `container`. Blocks that have not changed since the last call stay as they are. */
export function render(container, text, ended = true) {
  complete = ended;
  const blocks = marked.lexer(ended ? text : text.replace(UNDECIDED, "")).filter(block => block.type !== "space");
  highest = Math.min(6, ...blocks.filter(block => block.type === "heading").map(block => block.depth));
  blocks.forEach((block, i) => {
    const old = container.children[i], raw = `${ended && block.raw.length >= LONG} ${highest} ${block.raw}`;
    if (old?.raw === raw) return;
    const made = element("div", {raw, dir: "auto"}, sanitize(marked.parser([block])));
    decorate(made);
    if (old) old.replaceWith(made);
    else container.append(made);
  });
  while (container.children.length > blocks.length) container.lastChild.remove();
}

/** Copy buttons on code; wide code and tables scroll by themselves and by keyboard. */
function decorate(block) {
  for (const pre of block.querySelectorAll("pre")) {
    const code = pre.querySelector("code");
    const language = code.className.match(/language-([\w+#-]+)/)?.[1] ?? "text";
    const head = element("div", {className: "code-head"}, element("span", {}, language));
    const box = element("div", {className: "code", dir: "ltr"}, head);
    head.append(button("Copy", event => copy(code.textContent.replace(/\n$/, ""), event.target), {
      ariaLabel: `Copy ${language === "text" ? "the" : language} code`,
    }));
    pre.replaceWith(box);
    pre.tabIndex = 0;
    box.append(pre);
  }
  for (const table of block.querySelectorAll("table")) {
    const box = element("div", {className: "table", tabIndex: 0, role: "region", ariaLabel: "Table"});
    table.replaceWith(box);
    box.append(table);
  }
}
