"""Grammars that an answer must keep to: JSON schemas, regular expressions, Lark and llama.cpp's GBNF.

llguidance tells which tokens may come next. Grammars come from strangers, and a small one can ask for minutes of work
or gigabytes (nested repetitions, ambiguity), which no limit of the library prevents and no thread can be kept from. So
each runs in a process of its own, with a limit on its time and memory, beside the engine and never in its way.
"""
