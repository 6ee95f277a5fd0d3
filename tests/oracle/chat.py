"""Make tests/data/smollm2_chat.json: prompts as llama.cpp's own template engine renders SmolLM2's template.

python -m tests.oracle.chat LLAMA_SERVER COMMIT      # the server's program; COMMIT: llama.cpp's
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from tests.smollm2 import smollm2
from tests.texts import HERE

PORT = 18080
USER, SYSTEM = {"role": "user", "content": "Hi, who are you?"}, {"role": "system", "content": "Answer in one word."}
ANSWER = {"role": "assistant", "content": "SmolLM."}
CONVERSATIONS: dict[str, list[dict[str, str]]] = {
    "one turn": [USER],
    "one turn with a system message": [SYSTEM, USER],
    "two turns": [
        USER,
        ANSWER,
        {"role": "user", "content": 'Spell it, "letter by letter".\n\n  Don\'t stop {{ early }} 🙂'},
    ],
    "two turns with a system message": [SYSTEM, USER, ANSWER, USER],
}


def render(messages: list[dict[str, str]]) -> str:
    """The prompt of a conversation, ready for the assistant's answer."""
    body = json.dumps({"messages": messages}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/apply-template", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as reply:
        answer: dict[str, Any] = json.load(reply)
    return str(answer["prompt"])


def wait() -> None:
    """Until the server has loaded its model."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health"):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise SystemExit("llama-server does not answer")


def main(program: str, commit: str) -> None:
    """Write the file."""
    command = [program, "-m", str(smollm2()), "--port", str(PORT), "-c", "512", "--jinja", "--no-warmup"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait()
            rendered = {n: {"messages": m, "prompt": render(m)} for n, m in CONVERSATIONS.items()}
        finally:
            server.terminate()
    content = {"about": {"llama.cpp": commit}, "conversations": rendered}
    (HERE / "smollm2_chat.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
