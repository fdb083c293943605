"""Threads that yield: imported before PyTorch, whose OpenMP reads its settings once."""

import os

# GNU OpenMP's waiting threads spin for milliseconds. On a machine with other work each of the many
# short loops of a step then waits for a descheduled thread: measured, twenty times slower and more
# (docs/decisions/009-waiting-threads.md). A short spin costs nothing on a quiet machine.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
