/* Token probabilities as the two routes write them. */

const encoder = new TextEncoder();

/** Bytes of a token as /v1/completions spells it: text, or bytes:\xe2\x80. */
function bytes(token) {
  if (!token.startsWith("bytes:\\x")) return encoder.encode(token);
  return new Uint8Array(token.slice(6).split("\\x").slice(1).map(hex => parseInt(hex, 16)));
}

/** The tokens of one choice of a chunk: [{token, bytes, logprob, top: [[token, logprob], ...]}, ...]. */
export function tokensOf(logprobs) {
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
