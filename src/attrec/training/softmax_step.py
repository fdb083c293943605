"""The training step of the additive network: a softmax over distances at every position."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch

from attrec.config import TrainConfig
from attrec.data.packing import PackedBatch, Pieces
from attrec.data.sequences import Sequences
from attrec.model.additive import AdditiveNetwork
from attrec.model.softmax import sampled_softmax_loss, softmax_loss
from attrec.training.batches import step_positions

_BETAS = (0.9, 0.98)
_LARGEST_GRADIENT = 1.0
_FORGETS = 10.0
"""At first the average is over a tenth of the steps taken."""
_MOMENTS = ("exp_avg", "exp_avg_sq")


class SoftmaxStep:
    """AdamW on the mean loss of a batch's positions, −log of the target's softmax over distances.

    The softmax's scale is 1 / (2 ``temperature``), so that its logits are cosines over the
    temperature.

    What is judged and kept is a running average of the weights over about ``averaging`` epochs.

    The randomness of a step follows from the seed and the step's number: there is no generator
    whose state would have to be kept.
    """

    def __init__(self, network: AdditiveNetwork, config: TrainConfig) -> None:
        self.network, self.config = network, config
        self.steps = 0
        self.steps_of_an_epoch = 1.0
        self._log_scale = network.item_key.new_tensor(-math.log(2.0 * config.temperature))
        self._counts = network.item_key.new_zeros(network.num_items)
        self.average = {name: v.detach().clone() for name, v in network.named_parameters()}
        plain = [value for value in network.parameters() if value.dim() > 1]
        kept = [value for value in network.parameters() if value.dim() <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": plain, "weight_decay": config.weight_decay},
                {"params": kept, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=_BETAS,
            fused=True,
        )

    @property
    def learning_rate(self) -> float:
        """Of the step last taken, number s: η · min(1, s / w, h / s).

        w is ``warmup_steps``, h ``full_rate_steps``. No end has to be known beforehand.
        """
        rises, full = max(1, self.config.warmup_steps), self.config.full_rate_steps
        falls = full / self.steps if full else 1.0
        return self.config.learning_rate * min(1.0, self.steps / rises, falls)

    def batches(self, sequences: Sequences, epoch: int, skip: int = 0) -> Iterator[PackedBatch]:
        """Yield the batches of an epoch, from number ``skip``; (seed, epoch) determine them."""
        positions = step_positions(self.config, sequences.num_windows)
        taken = np.bincount(sequences.histories.values, minlength=self.network.num_items)
        self._counts = torch.from_numpy(taken).to(self._counts)
        self.steps_of_an_epoch = max(1.0, sequences.num_windows / positions)
        if self.config.softmax_samples:
            self._events = torch.from_numpy(sequences.histories.values.astype(np.int64))
            self._log_q = self._log_chances(self._events)
        rng = np.random.default_rng([self.config.seed, epoch])
        pieces = Pieces.cut(sequences, self.network.config.window_length, rng)
        for number, batch in enumerate(pieces.batches(sequences, positions, rng)):
            if number >= skip:
                yield batch

    def __call__(self, batch: PackedBatch) -> torch.Tensor:
        """Take one step; the loss is summed over the positions."""
        device = self.network.item_key.device
        items, lengths, targets = (torch.from_numpy(part).to(device) for part in batch)
        with torch.random.fork_rng([] if device.type == "cpu" else [device]):
            torch.manual_seed(self.config.seed + 1_000_003 * self.steps)
            self.network.train()
            loss = self._loss(items, lengths, targets)
            count = int((targets >= 0).sum())
            self.optimizer.zero_grad(set_to_none=True)
            (loss / max(1, count)).backward()  # type: ignore[no-untyped-call]
        self.network.eval()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT)
        self.steps += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.optimizer.step()
        self._take_average()
        return loss.detach()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the network have the average of its weights for a while."""
        trained = {name: v.detach().clone() for name, v in self.network.named_parameters()}
        self.finish()
        try:
            yield
        finally:
            self._set(trained)

    def finish(self) -> None:
        """Let the network end with the average of its weights."""
        self._set(self.average)
        self.network.settle(self._counts)

    def state(self) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return AdamW's moments by parameter, and the number of steps taken."""
        moments = {
            f"{name}.{moment}": self.optimizer.state[value][moment]
            for name, value in self.network.named_parameters()
            for moment in _MOMENTS
            if value in self.optimizer.state
        }
        moments |= {f"{name}.average": value for name, value in self.average.items()}
        return moments, torch.tensor([self.steps])

    def load_state(self, moments: Mapping[str, torch.Tensor], steps: torch.Tensor) -> None:
        """Take what `state` returned."""
        self.steps = int(steps)
        for name, value in self.average.items():
            value.copy_(moments[f"{name}.average"])
        for name, value in self.network.named_parameters():
            found = {
                m: moments[f"{name}.{m}"].to(value.device, copy=True)
                for m in _MOMENTS
                if f"{name}.{m}" in moments
            }
            if found:
                count = torch.tensor(float(self.steps), device=value.device)
                self.optimizer.state[value] = {"step": count, **found}

    @torch.no_grad()
    def _take_average(self) -> None:
        # 1 / t at first, so that the beginning is forgotten, until the average has its length.
        longest = max(1.0, self.config.averaging * self.steps_of_an_epoch)
        weight = 1.0 / min(longest, max(1.0, self.steps / _FORGETS))
        values = [value.detach() for value in self.network.parameters()]
        torch._foreach_lerp_(list(self.average.values()), values, weight)

    @torch.no_grad()
    def _set(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, value in self.network.named_parameters():
            value.copy_(values[name])

    def _loss(
        self, items: torch.Tensor, lengths: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        network, trained = self.network, targets >= 0
        queries = network.intents(items, lengths)[trained]
        chosen = (queries, network.keys(), targets[trained])
        smoothing = self.config.label_smoothing
        if not self.config.softmax_samples:
            return softmax_loss(*chosen, self._log_scale, label_smoothing=smoothing)
        samples = self._draw(self.config.softmax_samples).to(queries.device)
        log_q = self._log_q[samples.cpu()].to(queries) + math.log(len(samples))
        return sampled_softmax_loss(
            *chosen, samples, log_q, self._log_scale, label_smoothing=smoothing
        )

    def _draw(self, count: int) -> torch.Tensor:
        """Draw items, half of them uniformly and half as often as they were taken."""
        uniform = torch.randint(0, self.network.num_items, (count - count // 2,))
        taken = self._events[torch.randint(0, len(self._events), (count // 2,))]
        return torch.cat([uniform, taken])

    def _log_chances(self, events: torch.Tensor) -> torch.Tensor:
        """(N,): log Q of each item under `_draw`."""
        count, N = self.config.softmax_samples, self.network.num_items
        share = (count // 2) / count
        taken = torch.bincount(events, minlength=N).double() / max(1, len(events))
        return ((1 - share) / N + share * taken).log()
