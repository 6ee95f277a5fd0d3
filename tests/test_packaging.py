"""What is handed out: source distribution and wheel hold the files they should; service and image start our server."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import RawConfigParser
from pathlib import Path

import pytest

from ternrun.commands.names import command_parser
from ternrun.server.app.access import HEALTH

ROOT = Path(__file__).parent.parent
PAGES = ["CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"]
FOLDERS = ["docs", "examples", "packaging", "tests", "ternrun"]
NOT_MODULES = ["py.typed", "embedded/code-9m.gguf", "train/presets/shakespeare-char.toml", "server/web/index.html"]
LEFT = shutil.ignore_patterns("__pycache__", ".hypothesis")  # what running the tests leaves behind


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def build(what: str, source: Path) -> Path:
    """Call the build backend in the folder, as pip and build do. Returns the folder's archive of that kind."""
    call = f"from setuptools.build_meta import build_{what} as build; print(build('.'))"
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", call], cwd=source, env=environment, check=True, capture_output=True, text=True
    )
    return source / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("checkout")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=LEFT)
    for name in PAGES:
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def source(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of the checkout, unpacked."""
    expected = files(checkout)
    with tarfile.open(build("sdist", checkout)) as archive:
        unpacked = tmp_path_factory.mktemp("source")
        archive.extractall(unpacked, filter="data")
    (folder,) = unpacked.iterdir()
    generated = {"PKG-INFO", "setup.cfg"}
    assert {name for name in files(folder) if ".egg-info/" not in name} == expected | generated
    return folder


def test_the_wheel_of_the_source_distribution_holds_the_package_and_its_licenses(source: Path) -> None:
    expected = {f"ternrun/{name}" for name in files(source / "ternrun")}
    with zipfile.ZipFile(build("wheel", source)) as archive:
        packed = {name for name in archive.namelist() if not name.endswith("/")}
    assert {name for name in packed if ".dist-info/" not in name} == expected
    licenses = {name.split(".dist-info/licenses/")[1] for name in packed if ".dist-info/licenses/" in name}
    vendored = {name for name in expected if "/vendor/" in name and Path(name).name.startswith("LICENSE")}
    assert vendored
    assert {f"ternrun/{name}" for name in NOT_MODULES} <= expected
    assert licenses == {"LICENSE"} | vendored


def arguments(words: list[str]) -> argparse.Namespace:
    """What the program makes of a command line that another program starts: its path, a command, and flags."""
    program, command, *rest = words
    assert Path(program).name == "ternrun"
    return command_parser(command).parse(rest)


def test_the_service_starts_a_server_that_can_drain_in_time() -> None:
    unit = RawConfigParser(strict=False)
    unit.read(ROOT / "packaging/ternrun.service")
    service = dict(unit["Service"])
    served = arguments(shlex.split(service["execstart"].replace("%d", "/run/credentials/ternrun.service")))
    assert served.host == "127.0.0.1"
    assert served.drain < float(service["timeoutstopsec"])
    name, _, path = service["loadcredential"].partition(":")
    assert served.api_key_file == f"/run/credentials/ternrun.service/{name}"
    assert path.startswith("/etc/ternrun/")
    assert service["memorydenywriteexecute"] == "no"  # kernels are machine code


def test_the_image_starts_a_server_whose_kernels_are_there() -> None:
    text = (ROOT / "packaging/Containerfile").read_text().replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line[:1].isupper()]
    only = {word: rest for word, rest in steps if word in ("ENTRYPOINT", "EXPOSE", "USER")}
    entry = json.loads(only["ENTRYPOINT"])
    for model in ([], ["/models/model.gguf"]):
        served = arguments(entry + model)
        assert (served.host, str(served.port)) == ("0.0.0.0", only["EXPOSE"])
    (warm,) = (rest for word, rest in steps if word == "RUN" and rest.startswith("ternrun warm"))
    assert arguments(shlex.split(warm)).all
    assert only["USER"].split(":")[0] not in ("0", "root")
    # kernels belong to the user that compiles them, and nobody else's are run
    assert [word for word, _ in steps].index("USER") < steps.index(["RUN", warm])


def test_the_image_asks_whether_the_server_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "packaging/Containerfile").read_text()
    python, flag, code = json.loads(text.split("HEALTHCHECK")[1].split("CMD ")[1].splitlines()[0])
    assert (python, flag) == ("python", "-c")
    asked: list[str] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda address, timeout: asked.append(address))
    exec(code, {})
    assert asked == ["http://127.0.0.1:8080/health"]
    assert "/health" in HEALTH
