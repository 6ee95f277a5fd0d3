"""Several prompts at once: threads share the model, whose batches serve them together: python batch.py [model.gguf]"""

import sys
from concurrent.futures import ThreadPoolExecutor

import ternrun

PROMPTS = ["def add(a, b):", "def mean(values):", "class Stack:", "import os\n\ndef walk(path):"]

with ternrun.load(*sys.argv[1:2], max_batch=len(PROMPTS)) as model, ThreadPoolExecutor(len(PROMPTS)) as threads:
    answers = threads.map(lambda prompt: model.complete(prompt, max_tokens=32), PROMPTS)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        print(f"--- {answer.timings.first_token_s:.2f} s to the first token\n{prompt}{answer.text}")
