import numpy as np
import pytest

import attrec
from attrec.config import (
    PRESETS,
    ModelConfig,
    Options,
    ProtocolConfig,
    TrainConfig,
    option_specs,
    section_of,
)
from attrec.data.reading import read_interactions
from attrec.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("kind", "option", "words"),
    [
        (ModelConfig, {"embedding_dim": 7}, "take 8"),
        (ModelConfig, {"embedding_dim": 0}, "at least 2"),
        (ModelConfig, {"window_length": 0}, "at least 1"),
        (ModelConfig, {"long_term_weight": 1.5}, "at most 1"),
        (ModelConfig, {"long_term_weight": "x"}, "a finite number"),
        (ModelConfig, {"aggregation": "median"}, "one of 'mean'"),
        (ModelConfig, {"init_std": 0.0}, "above 0"),
        (TrainConfig, {"margin": float("nan")}, "a finite number"),
        (TrainConfig, {"norm_clipping": 1}, "true or false"),
        (TrainConfig, {"batch_size": 10.0}, "a whole number"),
        (TrainConfig, {"threads": 99_999_999_999}, "at most 4096"),
        (TrainConfig, {"learning_rate": 1e39}, r"above 0 and at most 1e\+30"),
        (TrainConfig, {"l2": 1e39}, r"at most 1e\+30"),
        (TrainConfig, {"softmax_samples": 10**20}, "at most 1000000"),
        (TrainConfig, {"batch_size": 10**20}, "at most 2147483647"),
        (TrainConfig, {"margin": 10**400}, "0…: expected a finite number"),
        (TrainConfig, {"margin": True}, "a finite number"),
        (TrainConfig, {"margin": np.bool_(True)}, "a finite number"),
        (TrainConfig, {"batch_size": np.float64(10)}, "a whole number"),
        (TrainConfig, {"device": 3}, "a text"),
        (ProtocolConfig, {"cutoffs": ()}, "lengths of at least 1"),
        (ProtocolConfig, {"cutoffs": (0, 5)}, "lengths of at least 1"),
        (ProtocolConfig, {"cutoffs": (5, 10**12)}, "at most 2147483647"),
        (ProtocolConfig, {"cutoffs": (1.5,)}, "a list of whole numbers"),
        (ProtocolConfig, {"test_fraction": 0.0}, "above 0"),
    ],
)
def test_a_bad_value_is_named_with_what_is_expected(kind, option, words):
    with pytest.raises(ConfigError, match=words) as caught:
        kind(**option)
    assert next(iter(option)) in str(caught.value)


def test_numpys_numbers_are_numbers():
    options = Options.of(
        "paper-dense", margin=np.float64(0.5), l2=np.int64(1), window_length=np.int32(7),
        cutoffs=[np.int64(5)],
    )  # fmt: skip
    assert options == Options.of("paper-dense", margin=0.5, l2=1, window_length=7, cutoffs=(5,))
    assert type(options.train.margin) is float
    assert {type(options.model.window_length), type(options.protocol.cutoffs[0])} == {int}


def test_a_column_may_be_named_by_its_number(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("[data]\nuser = 2\n")
    options = Options.of(file=file, item=np.int64(1))
    assert (options.data.user, options.data.item) == ("2", "1")
    log = tmp_path / "log.csv"
    log.write_text("a,u\nb,u\n")
    assert read_interactions(log, config=options.data).user_ids.tolist() == ["u"]
    with pytest.raises(DataError, match="user=0 is not a column; positions run from 1 to 2"):
        read_interactions(log, user=0)


@pytest.mark.parametrize("text", ["model = 3\n", "[[model]]\nheads = 2\n"])
def test_a_table_that_is_none_is_said_to_be_none(tmp_path, text):
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"expected a table; write \[model\]"):
        Options.of(file=file)


def test_a_number_beyond_all_digits_is_no_toml(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(f"[train]\nmargin = {5000 * '1'}\n")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        Options.of(file=file)


def test_unknown_names_offer_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'window_length'"):
        Options.of(window_lenght=3)
    with pytest.raises(ConfigError, match="did you mean 'paper-dense'"):
        Options.of("paper-dence")
    file = tmp_path / "run.toml"
    file.write_text("[model]\nwindow_lenght = 3\n")
    with pytest.raises(ConfigError, match="did you mean 'window_length'"):
        Options.of(file=file)
    file.write_text("[modle]\nwindow_length = 3\n")
    with pytest.raises(ConfigError, match="did you mean 'model'"):
        Options.of(file=file)
    file.write_text("[model\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        Options.of(file=file)
    with pytest.raises(ConfigError, match="cannot be read"):
        Options.of(file=tmp_path / "none.toml")


def test_overrides_beat_the_file_which_beats_the_preset_which_beats_the_defaults(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('preset = "paper-dense"\n[train]\nl2 = 0.5\nmargin = 1\n')
    options = Options.of(file=file, margin=2)
    assert options.preset == "paper-dense"
    assert options.train.norm_clipping is False
    assert (options.train.l2, options.train.margin) == (0.5, 2.0)
    assert Options.of("paper-sparse", file).train.norm_clipping is True


def test_heads_share_the_embedding_evenly():
    assert Options.of(embedding_dim=12, heads=3).model.heads == 3
    with pytest.raises(ConfigError, match="must be a multiple of heads = 3; take 18"):
        Options.of(embedding_dim=14, heads=3)
    assert Options.of("paper-sparse", embedding_dim=14).model.embedding_dim == 14


def test_options_that_go_together_are_set_together():
    options = Options.of(embedding_dim=12, heads=3)
    for values in ({"embedding_dim": 50, "heads": 5}, {"heads": 5, "embedding_dim": 50}):
        assert options.with_(**values) == Options.of(**values)
    with pytest.raises(ConfigError, match="must be a multiple of heads = 3"):
        options.with_(embedding_dim=50)


def test_an_option_that_would_be_ignored_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'margin' means nothing to architecture = 'additive'"):
        Options.of("accurate", margin=0.5)
    with pytest.raises(ConfigError, match="'heads' means nothing to architecture = 'paper'"):
        Options.of("paper-sparse", heads=2)
    file = tmp_path / "run.toml"
    file.write_text('preset = "accurate"\n[train]\nl2 = 0.5\n')
    with pytest.raises(ConfigError, match="'l2' means nothing"):
        Options.of(file=file)


@pytest.mark.parametrize("verb", [attrec.fit, attrec.tune])
@pytest.mark.parametrize(
    "beside",
    [{"margin": 77.0}, {"nonsense": 3}, {"item_categories": None}, {"preset": "paper-sparse"},
     {"config_file": "run.toml"}],
)  # fmt: skip
def test_options_all_at_once_and_others_beside_them_are_refused(verb, beside, tmp_path):
    more = {"folder": tmp_path / "tuning"} if verb is attrec.tune else {}
    ((name, _),) = beside.items()
    with pytest.raises(ConfigError, match=f"^{name} = .*: options are given all at once, too"):
        verb(tmp_path / "log.csv", options=Options.of("paper-sparse"), **beside, **more)


def test_what_is_written_is_read_whatever_the_options_came_from(tmp_path):
    options = Options.of("accurate").with_(margin=0.9, dropout=0.1)
    (tmp_path / "best.toml").write_text(options.to_toml("dropout", "margin"))
    assert Options.of(file=tmp_path / "best.toml") == Options.of("accurate", dropout=0.1)


def test_an_architecture_brings_its_preset(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('[model]\narchitecture = "paper"\n')
    for options in (Options.of(architecture="paper"), Options.of(file=file)):
        assert options.preset == "paper-sparse"
        assert (options.model.window_length, options.train.learning_rate) == (5, 0.05)
    assert Options.of().preset == "accurate"
    assert Options.of().model.window_length == 200
    assert Options.of("paper-dense", architecture="additive").train.learning_rate == 0.05


def test_options_survive_json():
    options = Options.of("paper-dense", cutoffs=[20, 5, 5], split="global-time")
    assert options.protocol.cutoffs == (5, 20)
    assert Options.from_dict(options.to_dict()) == options
    assert options.with_(window_length=9, seed=4).to_dict()["train"]["seed"] == 4


def test_every_option_is_declared_once_with_help():
    specs = option_specs()
    names = [spec.name for spec in specs]
    assert len(names) == len(set(names))
    assert all(spec.doc for spec in specs)
    assert all(section_of(spec.name) == spec.section for spec in specs)
    assert all(name in names for preset in PRESETS.values() for name in preset)


def test_a_preset_of_another_type_is_no_preset(tmp_path):
    file = tmp_path / "options.toml"
    file.write_text('preset = ["accurate"]\n')
    with pytest.raises(ConfigError, match=r"no preset \['accurate'\]"):
        Options.of(file=file)


def test_a_seed_is_one_that_every_generator_takes():
    assert Options.of(seed=2**63 - 1).train.seed == 2**63 - 1
    with pytest.raises(ConfigError, match="seed"):
        Options.of(seed=2**63)
