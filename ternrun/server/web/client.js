/* Talking to the server. */

class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** A request with the key in it. Throws Problem with the server's own sentence. */
async function call(path, body, signal) {
  const headers = body ? {"Content-Type": "application/json"} : {};
  if ($("key").value) headers.Authorization = `Bearer ${$("key").value}`;
  const response = await fetch(path, {method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal});
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  throw new Problem(response.status, told?.error?.message ?? `the server answered ${response.status}`);
}

/** The objects of a stream of server-sent events. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = "";;) {
    const {value, done} = await reader.read();
    if (done) throw new Problem(0, "the server broke off");
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part === "data: [DONE]") return;
      const event = JSON.parse(part.slice(6));
      if (event.error) throw new Problem(0, event.error.message);
      yield event;
    }
  }
}

const encoder = new TextEncoder();

/** Bytes of a token as /v1/completions spells it: text, or bytes:\xe2\x80. */
function bytes(token) {
  if (!token.startsWith("bytes:\\x")) return encoder.encode(token);
  return new Uint8Array(token.slice(6).split("\\x").slice(1).map(hex => parseInt(hex, 16)));
}

/** The tokens of one choice of a chunk, whichever of the two routes it came from. */
function tokens(logprobs) {
  if (!logprobs) return [];
  if (logprobs.content) {
    return logprobs.content.map(one => ({
      token: one.token, bytes: new Uint8Array(one.bytes ?? encoder.encode(one.token)), logprob: one.logprob,
      top: one.top_logprobs.map(other => [other.token, other.logprob]),
    }));
  }
  return logprobs.tokens.map((token, i) => ({
    token, bytes: bytes(token), logprob: logprobs.token_logprobs[i] ?? 0,
    top: Object.entries(logprobs.top_logprobs?.[i] ?? {}).sort((a, b) => b[1] - a[1]),
  }));
}
