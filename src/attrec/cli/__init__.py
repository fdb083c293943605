"""The command line: thin. It reads arguments, calls the library and prints."""

from __future__ import annotations

import sys

from attrec.cli.arguments import app
from attrec.errors import AttRecError, in_one_line
from attrec.screen import verbatim_console

# isort: split
# Their order is that of the help.
from attrec.cli import data
from attrec.cli import training
from attrec.cli import asking
from attrec.cli import report
from attrec.cli import upkeep
from attrec.cli import checking
from attrec.cli import vectors

__all__ = [
    "app", "asking", "checking", "data", "main", "report", "training", "upkeep", "vectors",
]  # fmt: skip
EXIT_USER_ERROR = 2


def main() -> None:
    """Run the command line; a user's error is one sentence and exit code 2."""
    try:
        app()
    except AttRecError as error:
        _tell(error)
        sys.exit(EXIT_USER_ERROR)
    except BrokenPipeError:
        # The reader of the pipe (head, say) has had enough.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.filename is None:
            raise
        # A path that cannot even be looked at, of which nobody said more.
        _tell(
            f"{error.filename}: {in_one_line(error)}; check the path, and that this account may "
            "use it"
        )
        sys.exit(EXIT_USER_ERROR)


def _tell(sentence: object) -> None:
    verbatim_console(stderr=True).print(f"attrec: {sentence}", style="red", highlight=False)
