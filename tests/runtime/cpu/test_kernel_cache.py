"""The kernel cache: what is damaged or not ours is compiled again, never run; code runs without LLVM where it can."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ternrun.errors import KernelError
from ternrun.runtime.cpu import autotune
from ternrun.runtime.cpu.compile import cache_files, isa, kernel_cache, linker, worker_processes
from ternrun.runtime.cpu.compile.build import report
from ternrun.runtime.cpu.compile.executable import Executable
from ternrun.runtime.cpu.compile.kernel_cache import KernelCache, symbol_of
from ternrun.runtime.cpu.memory import address
from tests.runtime.cpu.harness import ISAS, copy_of, machine

NAME = "rows.bias"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[list[str]]]:
    """An empty cache, and a compiler that copies from the tests' own; what it was asked for is told."""
    machine("portable").kernels.require([NAME])
    source, asked = kernel_cache.folder_for(isa.select_isa("portable")), []
    monkeypatch.setenv("TERNRUN_CACHE", str(tmp_path / "cache"))

    def compile_again(kernels: KernelCache, names: list[str]) -> None:
        asked.append(names)
        for name in names:
            (kernels._folder / name).write_bytes((source / name).read_bytes())

    monkeypatch.setattr(KernelCache, "_compile", compile_again)
    return asked


def load() -> KernelCache:
    kernels = KernelCache(isa.select_isa("portable"))
    kernels.require([NAME])
    assert kernels[NAME]
    return kernels


def test_compiled_once(compiled: list[list[str]]) -> None:
    load()
    load()
    assert compiled == [[NAME]]


@pytest.mark.parametrize("damage", ["cut", "byte", "magic", "empty", "foreign"])
def test_what_is_damaged_is_compiled_again(compiled: list[list[str]], damage: str) -> None:
    path = load()._folder / NAME
    data = path.read_bytes()
    path.write_bytes({
        "cut": data[:-5], "byte": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "magic": b"x" + data, "empty": b"",
        "foreign": data.partition(b"\n")[2],
    }[damage])  # fmt: skip
    load()
    assert compiled == [[NAME], [NAME]]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions are those of Unix")
def test_a_folder_that_others_may_write_to_is_not_used(compiled: list[list[str]]) -> None:
    folder = load()._folder
    folder.chmod(0o777)
    assert load()._folder != folder
    assert compiled == [[NAME], [NAME]]


def test_a_folder_for_reading_only_is_read(compiled: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """As it comes with a container's image: what it lacks is compiled for the process alone."""
    folder = load()._folder
    monkeypatch.setattr(cache_files, "is_writable", lambda folder: False)
    assert load()._folder == folder
    (folder / NAME).unlink()
    assert load()._folder != folder
    assert compiled == [[NAME], [NAME]]
    assert not [*folder.iterdir()]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs CPU sets")
def test_no_more_processes_compile_than_there_are_cpus_to_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A container may have few of the machine's, and little memory."""
    started: list[list[str]] = []

    class Compiler:
        returncode, pid = 0, 0

        def __init__(self, command: list[str], **options: object) -> None:
            started.append(command)
            self.stdin = io.StringIO()

        def wait(self) -> int:
            return 0

        def poll(self) -> int:
            return 0

    monkeypatch.setenv("TERNRUN_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5})
    monkeypatch.setattr(subprocess, "Popen", Compiler)
    KernelCache(isa.select_isa("portable"))._compile(["rows.bias", "rows.norm"])
    assert len(started) == 1


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TERNRUN_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)

    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    assert not cache_files.is_usable(cache_files.cache_root() / "kernels")


def test_a_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERNRUN_CACHE", "~/kept")  # as it stands in a unit file, which no shell reads
    assert cache_files.cache_root() == Path.home() / "kept"


def test_what_does_not_fit_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(path: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        cache_files.write(tmp_path / "kernel", b"code")
    cache_files.try_write(tmp_path / "kernel", b"code")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ISAS)
def test_images_and_objects_do_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels that run are images (on x86-64 Linux); LLVM's own linker makes the same of the same object."""
    script = (
        "import sys; from ternrun.runtime.cpu.compile import build; "
        "machine, module = build.compile_kernel(sys.argv[1]);"
        "code = build._machine(anywhere=False).emit_object(module); sys.stdout.buffer.write(code)"
    )
    environment = worker_processes.build_environment(isa.select_isa(name))
    command = [sys.executable, "-P", "-c", script, NAME]
    code = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    assert not code.startswith(linker.MAGIC)
    holder = Executable()
    at = holder.add({symbol_of(NAME): code})[symbol_of(NAME)]
    on = machine(name)
    on.kernels.require([NAME])
    results = []
    for entry in (at, on.kernels[NAME]):
        rows, bias = copy_of(np.arange(32)), copy_of(np.arange(32) * 3)
        count = copy_of(np.array([1]), np.int64)
        monkeypatch.setitem(on.kernels._addresses, NAME, entry)
        on.call(NAME, count=address(count), x=address(rows), ldx=32, n=32, bias=address(bias))
        results.append(rows.tolist())
    assert results[0] == results[1] == (np.arange(32) * 4).tolist()


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="images are of x86-64 Linux")
@pytest.mark.parametrize("name", ISAS)
def test_all_kernels_are_images(name: str) -> None:
    """None calls a library or keeps anything but code and constants."""
    machine(name)
    others = {".s", autotune.FILE}  # listings of other tests, and what was measured
    kept = [p for p in kernel_cache.folder_for(isa.select_isa(name)).iterdir() if not {p.name, p.suffix} & others]
    assert len(kept) > 20
    assert [p.name for p in kept if not (cache_files.read(p) or linker.MAGIC).startswith(linker.MAGIC)] == []


def test_what_is_no_object_has_no_image() -> None:
    assert linker.image(b"\x7fELF\x01\x01" + bytes(100), "x") is None
    assert linker.image(b"MZ" + bytes(100), "x") is None


def test_what_cannot_be_compiled_is_told_in_one_line() -> None:
    with pytest.raises(KernelError, match="kernels could not be compiled: .*no_such") as caught:
        KernelCache(isa.select_isa("portable")).require(["no_such.kernel"])
    assert "\n" not in str(caught.value)
    assert "Traceback" in caught.value.__notes__[0]


def test_a_kernel_that_is_done_is_reported_in_one_write(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes share a pipe: where a name and its line end come apart, each would wait for the other for ever."""
    written: list[bytes] = []
    monkeypatch.setattr(os, "write", lambda handle, data: written.append(data))
    report("rows.bias")
    assert written == [b"\nrows.bias\n"]
    assert capfd.readouterr().out == ""
