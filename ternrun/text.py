"""Stop strings in text that arrives piece by piece."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Passes text on up to the first completed stop string, and holds back what may become one.

    The text ends where that stop string begins (the longest, if several end at the same character). The cuts between
    pieces make no difference. Each stop string is one Knuth-Morris-Pratt automaton, so the time is linear in the text.

    The first `least` pieces pass unchecked: no stop string ends a text that early. With `include` the text ends after
    the stop string. `found` is the completed stop string, or empty.
    """

    def __init__(self, stops: Sequence[str], *, least: int = 0, include: bool = False) -> None:
        self._stops = [(stop, _borders(stop)) for stop in stops]
        self._matched = [0] * len(stops)  # characters of each stop string that the text ends with
        self._held = ""
        self._unseen = least
        self._include = include
        self.found = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """The text that is final now, and whether a stop string was completed (then push nothing more)."""
        if not self._stops:
            return piece, False
        if self._unseen > 0:
            self._unseen -= 1
            return piece, False
        text, self._held = self._held + piece, ""
        for at in range(len(text) - len(piece), len(text)):
            found = [stop for i, (stop, _) in enumerate(self._stops) if self._step(i, text[at])]
            if found:
                self.found = max(found, key=len)
                return text[: at + 1 - (0 if self._include else len(self.found))], True
        certain = len(text) - max(self._matched)
        self._held = text[certain:]
        return text[:certain], False

    def flush(self) -> str:
        """The text that was held back, at the end."""
        held, self._held = self._held, ""
        self._matched = [0] * len(self._stops)
        return held

    def _step(self, index: int, char: str) -> bool:
        stop, borders = self._stops[index]
        n = self._matched[index]
        while n and stop[n] != char:
            n = borders[n - 1]
        self._matched[index] = n + (stop[n] == char)
        return self._matched[index] == len(stop)


def _borders(stop: str) -> list[int]:
    """For each prefix, the length of its longest proper prefix that is also its suffix."""
    borders = [0]
    for char in stop[1:]:
        n = borders[-1]
        while n and stop[n] != char:
            n = borders[n - 1]
        borders.append(n + (stop[n] == char))
    return borders
