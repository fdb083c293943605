"""How the kept files were made, once, by the version that wrote their format first.

The tables of paper-dense, which no kept model holds, are of the version before the accurate preset
came. answers.json is what the version that wrote a model answered from it.

python -m tests.formats.make   would write them again in the present format: only for a new one.
"""

import contextlib
import json
from pathlib import Path

from safetensors.torch import save_file

import attrec
from attrec.data.items import Items
from attrec.errors import InterruptedTraining

HERE = Path(__file__).parent
OPTIONS = {
    "embedding_dim": 4,
    "max_epochs": 2,
    "batch_size": 40,
    "architecture": "paper",
    "init_std": 0.3,
}


ADDITIVE = {
    "embedding_dim": 8, "heads": 2, "blocks": 1, "window_length": 6, "max_epochs": 2,
    "min_steps": 5, "item_categories": "kind",
}  # fmt: skip
HISTORY = [3, 7, 3]
"""Of somebody whom no model has met."""


class Stop(attrec.Listener):
    def stop_requested(self):
        return True


def log():
    return attrec.simulate("mixed", num_users=12, num_items=20, events_per_user=6, seed=8)


def items():
    kinds = {str(item): "even" if item % 2 == 0 else "odd" for item in range(20)}
    return Items({"0": "Zero"}, {"kind": kinds})


def answers(served):
    """Lists of [item, distance], of every user and of somebody new."""
    lists = {str(user): served.recommend(user, k=5) for user in served.vocabulary.user_ids}
    lists["new"] = served.recommend(history=HISTORY, k=5)
    return {who: [[int(one.item_id), one.distance] for one in lists[who]] for who in lists}


def main():
    attrec.fit(log(), titles={"0": "Zero"}, **OPTIONS).recommender.save(HERE / "model-1")
    attrec.fit(log(), items=items(), **ADDITIVE).recommender.save(HERE / "additive-model-1")
    dense = attrec.fit(log(), preset="paper-dense", **OPTIONS).recommender.network
    save_file(dense.state_dict(), HERE / "paper-dense-1.safetensors")
    kept = {name: answers(attrec.load(HERE / name)) for name in ("model-1", "additive-model-1")}
    (HERE / "answers.json").write_text(json.dumps(kept) + "\n")
    with contextlib.suppress(InterruptedTraining):
        attrec.fit(log(), checkpoint=HERE / "checkpoint-1", listener=Stop(), **OPTIONS)


if __name__ == "__main__":
    main()
