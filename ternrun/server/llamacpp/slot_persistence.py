"""POST /slots/{id}?action=save|restore|erase: llama.cpp's way to keep the work on a prompt over a restart."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from ternrun.errors import LoadError
from ternrun.runtime.engine.kv_transfer import cached_blocks, new_blocks
from ternrun.server.fields.reading import FieldTable, string
from ternrun.server.fields.sampling import MAX_SLOT, needed
from ternrun.server.fields.unsupported import MODEL
from ternrun.server.generation.request_fields import parsed
from ternrun.server.generation.service import Service
from ternrun.server.http.errors import ApiError
from ternrun.server.http.json_body import read_json
from ternrun.server.llamacpp.slot_file import Owner, is_saved, opened, write

if TYPE_CHECKING:
    from ternrun.api import Model

SLOT = FieldTable(read={"filename": (string, None)}, hints=MODEL)
FORBIDDEN = frozenset('/\\:*?"<>|')
LONGEST = 200  # bytes

Result = TypeVar("Result")


async def slot_action(request: web.Request, service: Service) -> web.Response:
    """Save what a slot holds to a file, restore it from one, or forget it."""
    model, slots = service.model, service.slots
    if not service.config.slot_save_path:
        raise ApiError("this server saves no slots: it was started without --slot-save-path", code="unsupported")
    if model.driver.engine.model.cache_blocks is None:
        raise ApiError("this model's slots cannot be saved: ONNX graphs keep a cache of their own", code="unsupported")
    given = request.match_info["id"]
    slot = int(given) if given.isdecimal() and len(given) <= len(str(MAX_SLOT)) else -1
    ids = slots[slot]
    values = parsed(service, SLOT, await read_json(request, service.config.stall, optional=True))
    action = request.query.get("action")
    if action == "erase":
        slots.note(slot, [])
        forgotten = await service.aside(partial(model.driver.call, lambda engine: engine.cache.forget(ids)))
        return web.json_response({"id_slot": slot, "n_erased": forgotten})
    if action not in ("save", "restore"):
        raise ApiError("action: must be save, restore or erase", param="action")
    name, began = _checked(needed(values, "filename")), time.perf_counter()
    path = Path(service.config.slot_save_path) / name
    if action == "save":
        count, size = await service.aside(partial(_explained, partial(_save, model, path, ids)))
        told = {"n_saved": count, "n_written": size}
    else:
        restored, size = await service.aside(partial(_explained, partial(_restore, model, path)))
        slots.note(slot, restored)
        told = {"n_restored": len(restored), "n_read": size}
    timings = {f"{action}_ms": (time.perf_counter() - began) * 1000}
    return web.json_response({"id_slot": slot, "filename": name, **told, "timings": timings})


def _checked(name: str) -> str:
    """The name of a file in the folder, and of nothing else. Raises ApiError."""
    plain = name.isprintable() and not set(name) & FORBIDDEN and len(name.encode("utf-8", "replace")) <= LONGEST
    if not plain or not name or name[0] in ". " or name[-1] in ". ":
        raise ApiError("filename: must be a plain name, without a path", param="filename")
    return name


def _explained(work: Callable[[], Result]) -> Result:
    try:
        return work()
    except LoadError as error:
        raise ApiError(f"filename: {error}", param="filename") from None
    except OSError as error:
        raise ApiError(f"the slot's file cannot be used: {error.strerror}", status=500) from None


def _save(model: Model, path: Path, ids: list[int]) -> tuple[int, int]:
    """What the cache still has of these tokens, to the file; returns how many they are, and the file's bytes."""
    owner, layers = _owner(model)
    if path.exists() and not (path.is_file() and is_saved(path)):
        raise ApiError("filename: there is something of that name that is no saved slot", param="filename")
    with cached_blocks(model.driver, ids) as blocks:
        if not blocks.tokens:
            raise ApiError("the cache holds nothing of this slot, not even one block of tokens")
        return blocks.tokens, write(path, owner, ids[: blocks.tokens], map(blocks.read, range(layers)))


def _restore(model: Model, path: Path) -> tuple[list[int], int]:
    """The file's tokens into the cache; returns them, and the file's bytes."""
    owner, layers = _owner(model)
    if not path.is_file():
        raise ApiError("filename: no slot was saved there", status=404, param="filename")
    with opened(path, owner) as saved, new_blocks(model.driver, saved.ids) as blocks:
        for layer in range(layers):
            blocks.write(layer, saved.layer(len(blocks.row), owner.block_bytes // layers))
        saved.check()
        return saved.ids, saved.size


def _owner(model: Model) -> tuple[Owner, int]:
    """Whose keys and values these are, and in how many layers they lie."""
    runner = model.driver.engine.model
    cache = runner.cache_blocks
    assert cache is not None
    return Owner(model.digest, cache.kind, runner.block_size, cache.layers * cache.block_bytes), cache.layers
