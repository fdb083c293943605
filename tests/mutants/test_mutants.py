"""The list of mutants fits the code as it is; `make mutants` shows that each one is killed."""

from tests.mutants.run import MUTANTS, ROOT, survives


def test_every_mutant_breaks_exactly_one_place():
    assert len(MUTANTS) >= 20
    for name, mutant in MUTANTS.items():
        text = (ROOT / "src" / "attrec" / mutant["file"]).read_text(encoding="utf-8")
        assert text.count(mutant["before"]) == 1, name
        assert mutant["before"] != mutant["after"], name
        assert all((ROOT / tests).exists() for tests in mutant["tests"]), name


def test_a_mutant_is_killed():
    assert not survives("max-and-min-swapped")
