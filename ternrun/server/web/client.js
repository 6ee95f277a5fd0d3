/* Requests to the server, and its streams. */

export const GONE = "the server is gone";

/** What went wrong: the HTTP status (0: no answer came) and one sentence. */
export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let key = "";
export const setKey = value => { key = value; };

/** A request, with the key if there is one. Throws Problem with the server's own sentence; AbortError if stopped. */
export async function call(path, body, signal) {
  const headers = body ? {"Content-Type": "application/json"} : {};
  if (key) headers.Authorization = `Bearer ${key}`;
  const options = {method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal};
  const response = await fetch(path, options).catch(failed);
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);
  throw new Problem(response.status, answer?.error?.message ?? `the server answered with status ${response.status}`);
}

/** The objects of a stream of server-sent events. Throws like `call`. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = "";;) {
    const {value, done} = await reader.read().catch(failed);
    if (done) throw new Problem(0, GONE);
    const parts = (rest + value).split(/\r?\n\r?\n/);
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split(/\r?\n/).filter(line => line.startsWith("data:")).map(line => line.slice(5).trim()).join("\n");
      if (data === "[DONE]") return;
      if (!data) continue; // a comment that keeps the connection open
      const event = JSON.parse(data);
      if (event.error) throw new Problem(0, event.error.message);
      yield event;
    }
  }
}

function failed(error) {
  throw error.name === "AbortError" ? error : new Problem(0, GONE);
}
