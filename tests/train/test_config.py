from __future__ import annotations

from pathlib import Path

import pytest

from ternrun.errors import ConfigError
from ternrun.train.config import TrainConfig
from ternrun.train.config_file import PRESETS, load_config
from ternrun.train.model.gguf_mapping import architecture

MODEL = "[model]\ndim = 64\nn_layers = 1\nn_heads = 2\nn_kv_heads = 1\nffn_dim = 64\n"


@pytest.mark.parametrize("name", sorted(p.stem for p in PRESETS.glob("*.toml")))
def test_presets_load(name: str) -> None:
    config = load_config(name)
    assert TrainConfig.from_dict(config.as_dict()) == config
    if name.startswith("code"):
        assert architecture(config.model) == "bitnet"  # which llama.cpp opens too


def test_settings_change_a_preset() -> None:
    mixed = load_config("code-5m", ['data.mix={"data/textbooks" = 0.25}'])
    assert mixed.data.mix == {"data/textbooks": 0.25}
    config = load_config("code-5m", ["optim.steps=7", "data.path=some where", "model.tied=false", "optim.clip=2"])
    assert (config.optim.steps, config.data.path, config.model.tied, config.optim.clip) == (7, "some where", False, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks dim, n_layers"),
        ("x = ", "not valid TOML"),
        (MODEL + "dimm = 3\n", "the table model .* has no key 'dimm'; did you mean model.dim"),
        (MODEL + "[optimm]\n", "no table 'optimm'"),
        ("optim = 3\n" + MODEL, "'optim' must be a table"),
        (MODEL.replace("64", '"64"', 1), "model.dim must be of type int"),
        (MODEL + "tied = 1\n", "model.tied must be of type bool"),
        (MODEL.replace("n_kv_heads = 1", "n_kv_heads = 3"), "n_kv_heads must be"),
        (MODEL.replace("n_layers = 1", "n_layers = 0"), "n_layers must be"),
        (MODEL + "head_dim = -2\n", "head_dim must be"),
        (MODEL.replace("dim = 64", "dim = 1", 1), "head width 0 must be even, and not 0"),
        (MODEL + "rope_base = 0\n", "rope_base must be"),
        (MODEL + "rope_base = nan\n", "rope_base must be"),
        (MODEL + "norm_eps = -1\n", "norm_eps must be"),
        (MODEL + "mhc_streams = 3\n", "mhc_streams must be 1, 2 or 4"),
        (MODEL + 'granularity = "group"\n', "divisible by 256"),
        (MODEL + "head_dim = 3\n", "must be even"),
        (MODEL + "[optim]\nsteps = 5\ndecay_steps = 6\n", "decay_steps 6 exceeds steps 5"),
        (MODEL + "[optim]\nsteps = 5\nfull_steps = 6\n", "full_steps 6 exceeds steps 5"),
        (MODEL + '[optim]\nother = "sgd"\n', "other must be one of adamw, lion"),
        (MODEL + "[optim]\nmatrix_lr = nan\n", "matrix_lr must be"),
        (MODEL + "[data]\nbatch = 0\n", "batch must be"),
        (MODEL + "[data]\nmix = 0.5\n", "data.mix must be of type dict"),
        (MODEL + "[data.mix]\na = true\n", "data.mix: the share of 'a' must be a number between 0 and 1, not True"),
        (MODEL + "[data.mix]\na = 1.5\n", "must be a number between 0 and 1, not 1.5"),
        (MODEL + "[data.mix]\na = 0.5\nb = 0.5\n", "shares add up to 1, and leave data.path nothing"),
    ],
)
def test_bad_configs_are_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(str(tmp_path / "c.toml"))
    assert "\n" not in str(caught.value)


def test_unknown_presets_and_changes_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"neither a config file nor a preset; did you mean code-10m\? presets are code-10m"
    ):
        load_config("code-10")
    with pytest.raises(ConfigError, match=r"--set takes table.key=value"):
        load_config("code-10m", ["steps=3"])
