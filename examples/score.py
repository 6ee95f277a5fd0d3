"""Which ending does the model find likeliest? python score.py [model.gguf]"""

import sys

import ternrun

QUESTION = "The capital of France is"
ENDINGS = [" Paris", " Berlin", " a banana"]

with ternrun.load(*sys.argv[1:2]) as model:
    start = len(model.tokenizer.encode(QUESTION))
    for ending in ENDINGS:
        ids = model.tokenizer.encode(QUESTION + ending)
        scores = model.score(ids)[start - 1 :]  # entry i tells of token i + 1
        print(f"{sum(score.logprob for score in scores):8.2f}  {QUESTION}{ending}")
    result = model.perplexity(" ".join(QUESTION + ending + "." for ending in ENDINGS))
    print(f"perplexity of all of it: {result.perplexity:.1f}, {result.bits_per_byte:.2f} bits per byte")
