"""AttRec: next-item recommendation with self-attention in a metric space.

>>> import attrec
>>> log = attrec.simulate("community", num_users=60, num_items=40, seed=0)
>>> result = attrec.fit(log, max_epochs=2, embedding_dim=8)
>>> len(result.recommender.recommend(log.user_ids[0], k=3))
3
"""

import attrec.threads  # noqa: F401 - first, before PyTorch
from attrec.api import FitResult, evaluate, fit
from attrec.certified import CertifiedCache
from attrec.config import ModelConfig, Options, ProtocolConfig, TrainConfig
from attrec.data.datasets import fetch
from attrec.data.interactions import InteractionLog
from attrec.data.items import read_item_titles, read_items
from attrec.data.reading import read_interactions
from attrec.data.simulate import simulate
from attrec.erasure import forget
from attrec.errors import AttRecError
from attrec.evaluation.evaluate import Evaluation
from attrec.listeners import Listener
from attrec.profiling import Profile
from attrec.recommender import Recommender
from attrec.tuning import TuneResult, tune
from attrec.tuning.study import TuningListener
from attrec.updating import update

load = Recommender.load

__all__ = [
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
