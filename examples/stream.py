"""Print a text while it is made; Ctrl-C ends it: python stream.py [model.gguf ["Once upon a time"]]"""

import sys

import ternrun

path = sys.argv[1] if len(sys.argv) > 1 else None  # none: the model that ternrun carries
prompt = sys.argv[2] if len(sys.argv) > 2 else "Once upon a time"

with ternrun.load(path) as model, model.stream(prompt, max_tokens=200, temperature=0.8, min_p=0.05, seed=1) as stream:
    print(prompt, end="", flush=True)
    try:
        for piece in stream:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pass
    print()
