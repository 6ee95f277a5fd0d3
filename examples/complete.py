"""Continue a prompt and say how fast: python complete.py [model.gguf ["def fibonacci(n):"]]"""

import sys

import ternrun

path = sys.argv[1] if len(sys.argv) > 1 else None  # none: the model that ternrun carries
prompt = sys.argv[2] if len(sys.argv) > 2 else "def fibonacci(n):"

with ternrun.load(path) as model:
    done = model.complete(prompt, max_tokens=64, stop=["\ndef ", "\nclass "])

print(prompt + done.text)
print(
    f"[{len(done.ids)} tokens, ended by {done.finish_reason}; {done.timings.decode_tokens_per_s:.0f} tokens a second, "
    f"model loaded in {done.timings.load_s:.2f} s; {done.backend}]"
)
