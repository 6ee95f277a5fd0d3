/* An answer on the page: its text as it comes, cut into the tokens it was made of where the server tells of them. */

const percent = logprob => `${(Math.exp(logprob) * 100).toFixed(logprob > -7 ? 1 : 3)} %`;
const visible = text => text.replace(/ /g, "·").replace(/\n/g, "↵").replace(/\t/g, "⇥") || "∅";
const shade = logprob => "t" + [0.9, 0.6, 0.3, 0.1, -1].findIndex(least => Math.exp(logprob) > least);

class Answer {
  constructor(element) {
    this.element = element;
    this.text = "";
    this.count = 0;
    this.tail = element.appendChild(document.createTextNode("")); // no token is known for it yet
    this.decoder = new TextDecoder();
  }

  /** Some more text, and tokens: {token, bytes, logprob, top: [[token, logprob], ...]}. */
  add(text, tokens) {
    this.text += text;
    this.count += tokens.length || (text ? 1 : 0);
    let rest = this.tail.data + text;
    for (const token of tokens) {
      let piece = this.decoder.decode(token.bytes, {stream: true});
      if (!rest.startsWith(piece)) piece = piece.trimStart(); // a text does not begin with its first token's space
      if (!piece || !rest.startsWith(piece)) continue; // a part of a character; an end token
      const span = document.createElement("span");
      span.className = `token ${shade(token.logprob)}`;
      span.textContent = piece;
      span.told = token;
      this.tail.before(span);
      rest = rest.slice(piece.length);
    }
    this.tail.data = rest;
  }
}

/** The small window that tells how likely a token was. */
class Tip {
  constructor(log, spoken) {
    this.log = log;
    this.spoken = spoken;
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
    if (!step || !tokens.length) return;
    event.preventDefault();
    const at = tokens.indexOf(this.here);
    const next = at < 0 ? (step > 0 ? 0 : tokens.length - 1) : Math.min(Math.max(at + step, 0), tokens.length - 1);
    tokens[next].scrollIntoView({block: "nearest"});
    this.show(tokens[next]);
    const told = this.here.told;
    const others = told.top.filter(([token]) => token !== told.token).slice(0, 2);
    const rivals = others.map(([token, logprob]) => `${token} ${percent(logprob)}`).join(", ");
    this.spoken.textContent = `${told.token}: ${percent(told.logprob)}${rivals ? `; others: ${rivals}` : ""}`;
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
      const row = document.createElement("tr");
      row.className = text === token.told.token ? "taken" : "";
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
