"""Print a text while it is made; Ctrl-C ends it: python stream.py model.gguf ["Once upon a time"]"""

import sys

import ternrun

path, prompt = (*sys.argv[1:], "Once upon a time")[:2]

with ternrun.load(path) as model, model.stream(prompt, max_tokens=200, temperature=0.8, min_p=0.05, seed=1) as stream:
    print(prompt, end="", flush=True)
    try:
        for piece in stream:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pass
    print()
