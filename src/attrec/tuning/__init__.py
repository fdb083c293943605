"""Searching for better options: the spaces, the trials that are kept, the loop, its picture."""

from attrec.tuning.run import BEST, TuneResult, check_search, remove_tuning, tune

__all__ = ["BEST", "TuneResult", "check_search", "remove_tuning", "tune"]
