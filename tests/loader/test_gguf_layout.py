"""What the tensors of a GGUF file are and where they lie."""

from __future__ import annotations

import struct

import pytest

from ternrun.errors import LoadError
from ternrun.loader.gguf.file import open_gguf
from tests.fuzz.build import Tensor, f32, noise
from tests.fuzz.build import gguf as build

TYPE_SIZES = [  # id, weights in a row, bytes of the tensor of two rows, the type it must be taken for
    (2, 32, 36, "Q4_0"), (30, 32, 128, "BF16"), (34, 256, 108, "TQ1_0"), (35, 256, 132, "TQ2_0"),
    (36, 256, 160, "I2_S"), (41, 1024, 288, "Q1_0"), (42, 2048, 1152, "Q2_0"), (42, 2048, 1088, "PQ2_0"),
    (134, 512, 212, "IQ1_BN"), (135, 512, 264, "IQ2_BN"), (142, 2048, 1088, "PQ2_0"), (143, 2048, 896, "PTQ1_0"),
    (39, 2048, 2176, "MXFP4"), (39, 2048, 1280, "TL2"), (40, 2048, 2304, "NVFP4"), (40, 2048, 768, "Q1_0_G32"),
    (38, 2048, 1024, "TL1"), (142, 2048, 1032, "IQ2_TN"), (143, 2048, 836, "IQ1_TN"), (999, 7, 96, "id 999"),
]  # fmt: skip


@pytest.mark.parametrize(("type_id", "cols", "size", "name"), TYPE_SIZES)
@pytest.mark.parametrize("first", [True, False])
def test_the_span_decides_what_an_id_means(save, type_id, cols, size, name, first):
    tensor = Tensor("t", (cols, 2), type_id, noise(size))
    model = open_gguf(save(build({}, [tensor, f32()] if first else [f32(), tensor])))
    t = model.tensors["t"]
    assert (t.type, t.shape) == (name, (2, cols))
    assert t.data.tobytes()[:size] == tensor.data


def test_one_id_has_one_meaning_in_a_file(save):
    """A tensor of 1,024 weights fits both after padding; the larger one of the same file decides."""
    small, large = Tensor("small", (1024,), 42, noise(272)), Tensor("large", (4096,), 42, noise(1088))
    assert open_gguf(save(build({}, [small]))).tensors["small"].type == "Q2_0"
    both = open_gguf(save(build({}, [small, large]))).tensors
    assert {t.type for t in both.values()} == {"PQ2_0"}
    assert both["small"].data.size == 272


REMEDIES = [
    (38, r"type TL1 is not supported: .* requantize the original model to I2_S or TQ2_0"),
    (37, r"type I8_S is not supported: requantize the model to"),
    (16, r"of shape \[1024\] .* type IQ2_XXS takes 264 bytes"),
    (26, r"of shape \[1024\] .* type I32 takes 4096 bytes"),
    (999, r"type id 999 is not supported"),
    (2**32 - 1, r"type id 4294967295 is not supported"),
]


@pytest.mark.parametrize(("type_id", "fault"), REMEDIES)
def test_types_that_cannot_be_run_are_listed_and_refused(save, type_id, fault):
    path = save(build({}, [Tensor("t", (1024,), type_id, noise(256)), f32()]))
    with pytest.raises(LoadError, match=rf"m.gguf: tensor 't' {fault}"):
        open_gguf(path).tensors["t"].checked()


def test_known_sizes_of_refused_types(save):
    model = open_gguf(save(build({}, [Tensor("t", (1024,), 16, noise(264)), f32()])))
    assert model.tensors["t"].type == "IQ2_XXS"
    assert "IQ2_XXS is not supported" in model.tensors["t"].refusal
    assert model.tensors["a"].refusal == ""


def test_the_seed_projects_dialect(save):
    rows, cols = 4, 256
    data = noise(rows * cols // 4) + struct.pack("<8f", *range(8))
    content = build({"nanochat.dim": ("u32", 256)}, [Tensor("t", (rows, cols), 100, data)], magic=b"GUGF")
    tensor = open_gguf(save(content)).tensors["t"].checked()
    assert (tensor.type, tensor.shape) == ("Q1_58", (rows, cols))
    assert tensor.data.tobytes() == data
    with pytest.raises(LoadError, match="type id 100 is not supported"):
        open_gguf(save(build({}, [Tensor("t", (cols, rows), 100, data)]))).tensors["t"].checked()


def test_alignment_is_the_files_own(save):
    content = build({"general.alignment": ("u32", 256)}, [f32("a"), f32("b", 100)], alignment=256)
    model = open_gguf(save(content))
    assert model.tensors["b"].data.tobytes() == noise(400)


def test_tensors_may_stand_in_any_order_and_without_padding_at_the_end(save):
    data = noise(128)
    tensors = [Tensor("b", (8,), 0, data, offset=32), Tensor("a", (8,), 0, b"", offset=0)]
    model = open_gguf(save(build({}, tensors, pad_end=False)))
    assert list(model.tensors) == ["b", "a"]
    assert model.tensors["a"].data.tobytes() == data[:32]
    assert model.tensors["b"].data.tobytes() == data[32:64]


def test_bytes_after_the_last_tensor_are_ignored_if_its_type_is_sure(save):
    assert open_gguf(save(bytes(build({}, [f32()]).data) + bytes(1000))).tensors["a"].data.size == 128
    with pytest.raises(LoadError, match=r"tensor 't' of shape \[2048\] and type Q2_0 takes 576 bytes, but has 1600"):
        open_gguf(save(bytes(build({}, [Tensor("t", (2048,), 42, noise(576))]).data) + bytes(1024)))


def test_weights_are_views_of_the_file(save):
    tensor = open_gguf(save(build({}, [f32()]))).tensors["a"]
    assert not tensor.data.flags.owndata
    assert not tensor.data.flags.writeable
