"""Files of every format that was ever written load for ever."""

import shutil
from pathlib import Path

import pytest

import attrec
from tests.formats.make import OPTIONS, log

HERE = Path(__file__).parent


@pytest.mark.parametrize("version", [1])
@pytest.mark.parametrize("kind", ["model", "additive-model"])
def test_a_model_of_an_earlier_format_answers_as_it_did(kind, version):
    served = attrec.load(HERE / f"{kind}-{version}")
    assert served.vocabulary.num_users == 12
    assert served.titles == {"0": "Zero"}
    assert len(served.recommend(served.vocabulary.user_ids[0], k=3)) == 3
    assert served.explain(served.vocabulary.user_ids[0], served.vocabulary.item_ids[0])
    assert attrec.evaluate(served, log()).to_dict()["systems"]["attrec"]


@pytest.mark.parametrize("version", [1])
def test_a_checkpoint_of_an_earlier_format_is_gone_on_from(version, tmp_path):
    kept = tmp_path / "checkpoint"
    shutil.copytree(HERE / f"checkpoint-{version}", kept)
    went_on = []

    class Watch(attrec.Listener):
        def going_on(self, epoch, steps):
            went_on.append((epoch, steps))

    result = attrec.fit(log(), checkpoint=kept, listener=Watch(), **OPTIONS)
    assert went_on == [(1, 1)]
    assert result.evaluation.systems
