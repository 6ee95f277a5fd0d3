/* The view of token probabilities: the text cut into its tokens, each shaded by how likely it was. */

import {$, element, say} from "./dom.js";

const percent = logprob => `${(Math.exp(logprob) * 100).toFixed(logprob > -7 ? 1 : 3)} %`;
const visible = text => text.replace(/ /g, "·").replace(/\n/g, "↵").replace(/\t/g, "⇥") || "∅";
const shade = logprob => "t" + [0.9, 0.6, 0.3, 0.1, -1].findIndex(least => Math.exp(logprob) > least);

/** Text as it comes, and its tokens; more tokens are appended, nothing is drawn twice. */
export class TokenView {
  constructor(container) {
    this.tail = container.appendChild(document.createTextNode("")); // no token is known for it yet
    this.decoder = new TextDecoder();
    this.length = this.drawn = 0;
  }

  /** The whole text so far, and the whole list of its tokens. */
  update(text, tokens) {
    let rest = this.tail.data + text.slice(this.length);
    this.length = text.length;
    for (const token of tokens.slice(this.drawn)) {
      let piece = this.decoder.decode(token.bytes, {stream: true});
      if (!rest.startsWith(piece)) piece = piece.trimStart(); // a text does not begin with its first token's space
      if (!piece || !rest.startsWith(piece)) continue; // a part of a character, or an end token
      const span = element("span", {className: `token ${shade(token.logprob)}`, textContent: piece, told: token});
      this.tail.before(span);
      rest = rest.slice(piece.length);
    }
    this.drawn = tokens.length;
    this.tail.data = rest;
  }
}

/** The small window that tells how likely a token was. */
export class Tip {
  constructor(log) {
    this.log = log;
    this.here = null;
    log.addEventListener("mouseover", event => this.show(event.target.closest(".token")));
    log.addEventListener("mouseleave", () => this.show(null));
    log.addEventListener("blur", () => this.show(null));
    log.addEventListener("wheel", () => this.show(null), {passive: true});
    log.addEventListener("keydown", event => this.key(event));
  }

  key(event) {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (event.key === "Escape") this.show(null);
    const answers = this.log.querySelectorAll(".assistant");
    const tokens = answers.length ? [...answers[answers.length - 1].querySelectorAll(".token")] : [];
    if (!step || !tokens.length || event.target !== this.log) return;
    event.preventDefault();
    const at = tokens.indexOf(this.here);
    const next = at < 0 ? (step > 0 ? 0 : tokens.length - 1) : Math.min(Math.max(at + step, 0), tokens.length - 1);
    tokens[next].scrollIntoView({block: "nearest"});
    this.show(tokens[next]);
    const told = this.here.told;
    const others = told.top.filter(([token]) => token !== told.token).slice(0, 2);
    const rivals = others.map(([token, logprob]) => `${token} ${percent(logprob)}`).join(", ");
    say(`${told.token}: ${percent(told.logprob)}${rivals ? `; others: ${rivals}` : ""}`);
  }

  show(token) {
    const tip = $("tip");
    this.here?.classList.remove("here");
    this.here = token;
    tip.hidden = !token;
    if (!token) return;
    token.classList.add("here");
    $("tip-token").textContent = visible(token.told.token);
    $("tip-chance").textContent = percent(token.told.logprob);
    $("tip-rows").replaceChildren(...token.told.top.map(([text, logprob]) => {
      const row = element("tr", {className: text === token.told.token ? "taken" : ""});
      row.insertCell().textContent = visible(text);
      row.insertCell().textContent = percent(logprob);
      return row;
    }));
    const place = token.getClientRects()[0];
    const below = place.bottom + tip.offsetHeight + 12 < innerHeight;
    tip.style.left = `${Math.max(8, Math.min(place.left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${below ? place.bottom + 6 : place.top - tip.offsetHeight - 6}px`;
  }
}
