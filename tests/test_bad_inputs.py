"""Every bad input of the list: one sentence, exit code 2, nothing lost, nothing half-written."""

import pytest

from tests.bad_inputs import CASES, run


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_input_gets_one_sentence_and_leaves_nothing(case, tmp_path):
    outcome = run(case, tmp_path)
    assert "Traceback" not in outcome.output
    assert outcome.code == case.code, outcome.output
    assert outcome.sentence, outcome.output
    if case.code:
        assert outcome.sentence.startswith("attrec: ")
        assert outcome.left_over == []
        assert "secret" not in outcome.sentence
