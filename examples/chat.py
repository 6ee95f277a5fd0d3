"""Talk to a model in the terminal; an empty line ends it: python chat.py model.gguf"""

import sys

import ternrun

if len(sys.argv) < 2:
    sys.exit(__doc__)
with ternrun.load(sys.argv[1]) as model:
    messages = [{"role": "system", "content": "You are a helpful assistant. Answer in one sentence."}]
    while question := input("you: ").strip():
        messages.append({"role": "user", "content": question})
        print("model: ", end="", flush=True)
        with model.chat_stream(messages, max_tokens=200) as stream:
            for piece in stream:
                print(piece, end="", flush=True)
        print()
        # what was said so far stays in the cache: the next turn computes only what is new
        messages.append({"role": "assistant", "content": stream.completion.text})
