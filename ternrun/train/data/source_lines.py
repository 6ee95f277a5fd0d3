"""Lines of Python source as its parser counts them, for line numbers from `ast`."""

from __future__ import annotations


def source_lines(text: str) -> list[str]:
    r"""Split at \n, \r\n and \r alone; `str.splitlines` sees more (a form feed before a `def` is one)."""
    return [line.decode("utf-8", "surrogatepass") for line in text.encode("utf-8", "surrogatepass").splitlines()]
