"""What is no model says what it is, and which command helps: files, folders, and GGUF files of other kinds."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from ternrun.errors import LoadError
from ternrun.loader.model import open_model
from ternrun.loader.unsupported.describe import describe
from tests.fakes import fake_gguf, fake_weights
from tests.fakes_hf import write_safetensors

SMALL = {"dim": 128, "n_heads": 2, "n_kv_heads": 1, "ffn_dim": 128, "n_layers": 2, "vocab_size": 260}


def zipped(**entries: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name.replace("__", "/").replace("_DOT_", "."), data)
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.gguf"))
    return out.getvalue()


def numpy_array() -> bytes:
    out = io.BytesIO()
    np.save(out, np.zeros(4))
    return out.getvalue()


def safetensors(first: str) -> bytes:
    text = first.encode()
    return struct.pack("<Q", len(text)) + text


def old_imatrix() -> bytes:
    name = b"blk.0.attn_q.weight"
    return struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii4f", 1, 4, 1, 2, 3, 4)


LEGACY_TORCH = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
FILES: dict[str, tuple[bytes, str]] = {
    "empty.gguf": (b"", r"is empty \(0 bytes\); download it again"),
    "page.gguf": (b"\n<!DOCTYPE html><html>404</html>", "is a web page, .* /resolve/"),
    "denied.gguf": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a server's error message"),
    "missing.gguf": (b'{"error":"Repository not found"}', "JSON text with an error message.* download the file again"),
    "pointer.gguf": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer.*'git lfs pull'"),
    "pytorch_model.bin": (zipped(archive__data_DOT_pkl=b"\x80\x02}q\x00."), "torch checkpoint.*convert_hf_to_gguf"),
    "old.pt": (LEGACY_TORCH, "torch checkpoint.*convert_hf_to_gguf"),
    "any.pkl": (pickle.dumps({"a": 1}), "torch checkpoint.*can run code"),
    "model.zip": (zipped(model_DOT_gguf=b"GGUF"), "zip archive.*: unzip "),
    "arrays.npz": (zipped(a_DOT_npy=b"\x93NUMPY"), "NumPy arrays"),
    "net.keras": (zipped(metadata_DOT_json=b"{}", model_DOT_weights_DOT_h5=b""), "Keras model"),
    "a.npy": (numpy_array(), "NumPy array"),
    "model.tar": (tarred(), "tar archive.*: tar -xf "),
    "model.tar.gz": (gzip.compress(tarred()), "gzip archive.*tar -xzf "),
    "model.gguf.zst": (b"\x28\xb5\x2f\xfd\x00", "zstd archive.*: unzstd "),
    "model.7z": (b"7z\xbc\xaf\x27\x1c\0\4", "7z archive.*: 7z x "),
    "model.gguf.xz": (b"\xfd7zXZ\0\0\4", "xz archive.*: unxz "),
    "model.safetensors": (safetensors('{"w":{"dtype":"F32"}}'), "weights alone.*config"),
    "adapter_model.safetensors": (safetensors('{"base.q.lora_A.weight":{}}'), "LoRA adapter.*merge"),
    "moved.safetensors": (
        safetensors('{"__metadata__":{"ternrun":"{}"}}'),
        "checkpoint of `ternrun train`.*ternrun train export .*moved.safetensors model.gguf",
    ),
    "tokenizer.json": (b'{"version":"1.0","added_tokens":[],"model":{}}', "tokenizer without a model.*name the folder"),
    "model.safetensors.index.json": (b'{"weight_map":{}}', "index of a sharded model; name the folder"),
    "plan.toml": (b"[model]\ndim = 64\n", "TOML text.*`ternrun train run`"),
    "notes.txt": ("Once upon a time, né\n".encode(), "is a text, not a GGUF file; `ternrun complete -f"),
    "Modelfile": (b"FROM ./model.gguf\nPARAMETER temperature 1\n", "Ollama Modelfile.*FROM"),
    "ggml-model-q4_0.bin": (b"tjgg\x03\0\0\0", "older than GGUF; convert"),
    "ggml-base.en.bin": (b"lmgg\x01\0\0\0", "older than GGUF.*whisper.cpp"),
    "lora.bin": (b"algg\x01\0\0\0", "LoRA adapter"),
    "big.gguf": (b"FUGG\0\0\0\3", "big-endian"),
    "imatrix.dat": (old_imatrix(), "importance matrix.*llama-quantize"),
    "model.h5": (b"\x89HDF\r\n\x1a\n", "HDF5.*Keras"),
    "model.tflite": (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
    "openvino_model.xml": (b'<?xml version="1.0"?>\n<net name="m">', "OpenVINO"),
    "model.llamafile": (b"MZqFpD='\n", r"llamafile.*unzip .*'\*.gguf'"),
    "tool.exe": (b"MZ\x90\0", "is a program"),
    "model.gguf.part1of2": (b"\x01\x02\x03\xff", r"one part of model.gguf.*all 2 parts: cat .*model.gguf.part\?of2 > "),
    "big.gguf.part3of12": (b"\x01\xff", r"cat \S+big.gguf.part\?of12 \S+big.gguf.part\?\?of12 > \S+big.gguf$"),
    "m.gguf.part-aa": (b"GGUF\x03\0\0\0", r"one part of m.gguf.*cat .*m.gguf.part-\?\? > .*m.gguf$"),
    "m.gguf-split-b": (b"\x00\xff", r"one part of m.gguf.*cat .*m.gguf-split-\? > "),
    "m.gguf.001": (b"\x00\xff", r"one part of m.gguf.*cat .*m.gguf.\?\?\? > "),
    "m.gguf.ab": (b"\x00\xff", r"one part of m.gguf.*cat .*m.gguf.\?\? > "),
    "m.gguf.0123456789ab.part": (b"GGUF\x03\0\0\0", "what has arrived of m.gguf; run the same `ternrun pull` again"),
    "0a1b.incomplete": (b"GGUF\x03\0\0\0", "unfinished download.*hf download"),
    "m.gguf.crdownload": (b"GGUF\x03\0\0\0", "unfinished download.*browser"),
    "graph": (b"\x08\x08\x12\x07pytorch", "looks like an ONNX file; .* ends in .onnx"),
    "secret.gguf": (bytes(range(128, 256)), r"is not a GGUF file \(it starts with "),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_model_says_what_it_is(name: str, tmp_path: Path) -> None:
    content, sentence = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LoadError, match=f"^{tmp_path / name} .*{sentence}") as error:
        open_model(tmp_path / name)
    assert "\n" not in str(error.value)


def test_the_command_that_joins_parts_joins_them_in_order(tmp_path: Path, gguf_file: Path) -> None:
    import re
    import subprocess

    whole = gguf_file.read_bytes()
    folder = tmp_path / "with space"
    folder.mkdir()
    size = -(-len(whole) // 12)
    for i in range(12):
        (folder / f"my model.gguf.part{i + 1}of12").write_bytes(whole[i * size : (i + 1) * size])
    with pytest.raises(LoadError) as error:
        open_model(folder / "my model.gguf.part2of12")
    command = re.search(r"cat .*", str(error.value))
    assert command
    subprocess.run(["sh", "-c", command[0]], check=True)
    assert (folder / "my model.gguf").read_bytes() == whole
    with pytest.raises(LoadError, match="lies whole beside it; name .*my model.gguf$"):
        open_model(folder / "my model.gguf.part2of12")


def write_folder(folder: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


LLAMA = {"model_type": "llama"}
NO_BYTES = {"model.safetensors": b""}


def quantized(**stated: object) -> dict[str, object]:
    return {"config.json": LLAMA | {"quantization_config": stated}} | NO_BYTES


FOLDERS: dict[str, tuple[dict[str, object], str]] = {
    "empty": ({}, "empty folder"),
    "run": ({"log.jsonl": b"", "last.safetensors": b"", "best.safetensors": b""},
            "folder of a training run.*ternrun train export .*best.safetensors model.gguf"),
    "begun": ({"log.jsonl": b"", "last.safetensors": b""}, "ternrun train export .*last.safetensors model.gguf"),
    "just begun": ({"log.jsonl": b""}, "training run that has no checkpoint yet"),
    "data": ({"manifest.json": {}, "train.bin": b"", "tokenizer.json": {}}, "data for training.*ternrun train run"),
    "peft": ({"adapter_config.json": {"peft_type": "LORA"}, "adapter_model.safetensors": b""}, "LoRA adapter.*merge"),
    "mlx": ({"config.json": LLAMA | {"quantization": {"group_size": 64, "bits": 4}}, "model.safetensors": b""},
            "MLX model.*4 bits.*mlx_lm.convert"),
    "awq": (quantized(quant_method="awq"), "AWQ"),
    "gptq": ({"config.json": LLAMA, "quantize_config.json": {"bits": 4}, "model.safetensors": b""}, "GPTQ"),
    "exl2": (quantized(quant_method="exl2"), "ExLlama"),
    "bnb": (quantized(load_in_4bit=True), "bitsandbytes"),
    "new": (quantized(quant_method="x\x1b[2J"), r"by 'x\\x1b\[2J', which"),
    "modelopt": ({"config.json": LLAMA, "hf_quant_config.json": {}, "model.safetensors": b""}, "NVIDIA's ModelOpt"),
    "compressed": ({"config.json": LLAMA | {"compression_config": {"quant_method": "compressed-tensors"}}} | NO_BYTES,
                   "compressed-tensors"),
    "mistral": ({"consolidated.safetensors": b"", "params.json": {}, "tekken.json": {}}, "its maker's own form"),
    "nemo": ({"model_config.yaml": b"", "model_weights/common.pt": b""}, "NeMo"),
    "zipped": ({"model.zip": b"PK"}, "zip archive and no model; unpack it"),
    "adapter alone": ({"config.json": LLAMA, "adapter_model.safetensors": b""}, "LoRA adapter.*merge"),
    "fsdp": ({"config.json": LLAMA, "__0_0.distcp": b""}, "accelerate merge-weights"),
    "deepspeed": ({"config.json": LLAMA, "zero_to_fp32.py": b"", "latest": b""}, "DeepSpeed.*zero_to_fp32"),
    "state": ({"config.json": LLAMA, "optimizer.pt": b"PK", "scheduler.pt": b"PK"}, "state of a training run"),
    "no index": ({"config.json": LLAMA, "m-00001-of-00002.safetensors": b"", "m-00002-of-00002.safetensors": b""},
                 r"in 2 files without m\.safetensors\.index\.json; download that"),
    "no shard": ({"config.json": LLAMA, "model-00002-of-00002.safetensors": b"", "model.safetensors.index.json": {}},
                 r"model-00001-of-00002\.safetensors is missing; download it"),
    "reward": ({"config.json": LLAMA | {"architectures": ["XForSequenceClassification"]}} | NO_BYTES, "classifies"),
    "eagle": ({"config.json": LLAMA | {"architectures": ["XForCausalLMEagle3"]}} | NO_BYTES, "drafts for another"),
    "only bin": ({"config.json": LLAMA, "pytorch_model.bin": b"PK"}, "pytorch_model.bin alone.*save"),
    "shards": ({"config.json": LLAMA, "pytorch_model-00001-of-00002.bin": b"PK"}, "pytorch_model.bin alone.*convert"),
    "meta": ({"params.json": {}, "consolidated.00.pth": b"PK"}, "torch checkpoints.*convert"),
    "only config": ({"config.json": LLAMA}, "config.json and no weights"),
    "only tokenizer": ({"tokenizer.model": b"\n"}, "tokenizer and no weights"),
    "tf": ({"config.json": LLAMA, "tf_model.h5": b""}, "TensorFlow"),
    "flax": ({"config.json": LLAMA, "flax_model.msgpack": b""}, "Flax"),
    "saved": ({"saved_model.pb": b"", "variables/v": b""}, "TensorFlow model"),
    "coreml": ({"m.mlpackage/Manifest.json": {}}, "Core ML"),
    "openvino": ({"openvino_model.xml": b"<net>", "openvino_model.bin": b"", "config.json": LLAMA}, "OpenVINO"),
    "mlc": ({"mlc-chat-config.json": {}, "params_shard_0.bin": b""}, "MLC"),
    "sd": ({"model_index.json": {"_class_name": "Flux"}, "unet/config.json": {}}, "diffusers"),
    "unet": ({"config.json": {"_class_name": "UNet"}, "d.safetensors": b""}, "diffusers"),
    "whisper": ({"config.json": {"model_type": "whisper"}, "model.safetensors": b""}, "type whisper.*sound"),
    "clip": ({"config.json": {"model_type": "clip"}, "model.safetensors": b""}, "type clip.*pictures"),
    "bert": ({"config.json": {"model_type": "bert"}, "model.safetensors": b""}, "encoder.*optimum-cli export onnx"),
    "t5": ({"config.json": {"model_type": "t5"}, "model.safetensors": b""}, "encoder with a decoder"),
    "pieces": ({"m.gguf.part1of2": b"", "m.gguf.part2of2": b""}, "no whole model: m.gguf.part1of2 .*cat "),
    "second": ({"m-00002-of-00003.gguf": b"GGUF"}, "without its first, NAME-00001-of-0000N.gguf"),
    "pulling": ({"m.gguf.0123456789ab.part": b"GGUF"}, "what has arrived of m.gguf; run the same `ternrun pull`"),
    "store": ({"blobs/sha256-00": b"GGUF", "manifests/x": {}}, "Ollama's store.*ollama show"),
    "studio": ({"owner/name/m.gguf": b"GGUF"}, "models in folders below it; name one, such as .*owner/name/m.gguf$"),
    "hub": ({"models--o--n/snapshots/0a/model.safetensors": b""}, "such as .*models--o--n/snapshots/0a$"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_no_model_says_what_it_is(name: str, tmp_path: Path) -> None:
    files, sentence = FOLDERS[name]
    folder = tmp_path / name
    folder.mkdir()
    write_folder(folder, files)
    with pytest.raises(LoadError, match=f"^{folder} .*{sentence}") as error:
        open_model(folder)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_a_run_is_told_by_its_file_too(tmp_path: Path) -> None:
    write_folder(tmp_path, {"log.jsonl": b"", "best.safetensors": safetensors('{"__metadata__":{"ternrun":"{}"}}')})
    with pytest.raises(LoadError, match=r"best.safetensors is a checkpoint .* ternrun train export"):
        open_model(tmp_path / "best.safetensors")


def test_an_ollama_manifest_names_the_blob_that_runs(tmp_path: Path, gguf_file: Path) -> None:
    digest = "0123456789abcdef" * 4
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    manifest = "manifests/registry.ollama.ai/library/tiny/latest"
    write_folder(tmp_path, {manifest: {"layers": [layer]}, f"blobs/sha256-{digest}": gguf_file.read_bytes()})
    with pytest.raises(LoadError, match=f"Ollama manifest; the model it names is {tmp_path}/blobs/sha256-{digest}$"):
        open_model(tmp_path / manifest)
    with open_model(tmp_path / f"blobs/sha256-{digest}") as model:  # without a suffix
        assert (model.name, model.format) == ("Tiny", "gguf")


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return fake_gguf(folder / "tiny.gguf", fake_weights("qwen3", "I2_S", **SMALL), general__name="Tiny")


def written(path: Path, architecture: str, tensors: tuple[str, ...], fill: Callable[[gguf.GGUFWriter], object]) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    fill(writer)
    for name in tensors:
        writer.add_tensor(name, np.zeros(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


GGUFS: dict[str, tuple[str, tuple[str, ...], Callable[[gguf.GGUFWriter], object], str]] = {
    "lora": (
        "llama",
        ("blk.0.attn_q.weight.lora_a",),
        lambda w: w.add_type("adapter"),
        "LoRA adapter.*llama-export-lora",
    ),
    "untyped": ("llama", ("blk.0.attn_q.weight.lora_b",), lambda w: None, "LoRA adapter.*llama-export-lora"),
    "mmproj": ("clip", ("v.patch_embd.weight",), lambda w: w.add_type("mmproj"), "projector"),
    "imatrix": ("llama", ("blk.0.attn_q.weight.in_sum2",), lambda w: w.add_type("imatrix"), "importance matrix"),
    "steer": ("controlvector", ("direction.1",), lambda w: None, "control vector"),
    "flux": ("flux", ("img_in.weight",), lambda w: None, r"pictures \(flux\)"),
    "vocab": ("llama", (), lambda w: w.add_token_list(["a", "b"]), "vocabulary alone.*ternrun tokenize"),
}


@pytest.mark.parametrize("name", GGUFS)
def test_a_gguf_file_of_another_kind_says_what_it_is(name: str, tmp_path: Path) -> None:
    architecture, tensors, fill, sentence = GGUFS[name]
    path = written(tmp_path / f"{name}.gguf", architecture, tensors, fill)
    with pytest.raises(LoadError, match=f"^{path} .*{sentence}"):
        open_model(path)


def test_a_projector_names_the_model_beside_it_which_opens_by_its_folder(tmp_path: Path, gguf_file: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(gguf_file.read_bytes())
    path = written(tmp_path / "mmproj-model.gguf", "clip", ("v.w",), lambda w: w.add_type("mmproj"))
    with pytest.raises(LoadError, match=f"name the language model beside it: {model}$"):
        open_model(path)
    with open_model(tmp_path) as opened:
        assert opened.path == model


def test_an_index_of_shards_that_became_one_file_is_passed_over(tmp_path: Path) -> None:
    from ternrun.loader.hf.safetensors import open_folder

    write_safetensors(tmp_path / "model.safetensors", {"w": ("F32", (1,), bytes(4))})
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"w": "model-00001-of-00002.safetensors"}}')
    assert list(open_folder(tmp_path)) == ["w"]


def test_describing_opens_no_pipes_and_reads_a_bounded_part(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "config.json")
    os.mkfifo(tmp_path / "pipe")
    assert describe(tmp_path / "pipe") is None
    assert describe(tmp_path / "gone") is None
    assert "config.json" in (describe(tmp_path) or "")
    assert describe(Path("a\0b")) is None


def test_a_sound_model_is_described_as_nothing(gguf_file: Path) -> None:
    assert describe(gguf_file) is None
    assert describe(gguf_file.parent) is None
