import importlib.resources
import inspect
import os
import subprocess
import sys

import attrec
from attrec import errors


def test_the_public_names_are_these_and_no_others():
    assert attrec.__all__ == [
        "AttRecError",
        "CertifiedCache",
        "Evaluation",
        "FitResult",
        "InteractionLog",
        "Listener",
        "ModelConfig",
        "Options",
        "Profile",
        "ProtocolConfig",
        "Recommender",
        "TrainConfig",
        "TuneResult",
        "TuningListener",
        "evaluate",
        "fetch",
        "fit",
        "forget",
        "load",
        "read_interactions",
        "read_item_titles",
        "read_items",
        "simulate",
        "tune",
        "update",
    ]
    assert all(hasattr(attrec, name) for name in attrec.__all__)


def test_every_public_name_is_documented():
    for name in attrec.__all__:
        assert inspect.getdoc(getattr(attrec, name)), name


def test_the_package_is_typed():
    assert importlib.resources.files("attrec").joinpath("py.typed").is_file()


def test_the_error_tree_is_drawn_in_its_docstring():
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    for kind in kinds:
        assert issubclass(kind, attrec.AttRecError)
        assert kind.__name__ in errors.__doc__
        assert kind.__doc__


def test_an_unknown_id_reads_as_a_sentence():
    assert str(errors.UnknownIdError("user 7: not known")) == "user 7: not known"
    assert str(errors.UnknownIdError()) == ""


def test_a_missing_extra_names_the_install_command():
    error = errors.MissingExtraError("polars", "frames", "reading a frame")
    assert "pip install 'attrec[frames]'" in str(error)


def test_waiting_threads_yield_unless_the_user_says_otherwise():
    def spin(**settings):
        bare = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OMP_WAIT"))}
        program = "import attrec, os; print(os.environ.get('GOMP_SPINCOUNT'))"
        found = subprocess.run(
            [sys.executable, "-c", program],
            env={**bare, **settings},
            capture_output=True,
            check=True,
            text=True,
        )
        return found.stdout.strip()

    assert spin() == "1000"
    assert spin(GOMP_SPINCOUNT="7") == "7"
    assert spin(OMP_WAIT_POLICY="active") == "None"
