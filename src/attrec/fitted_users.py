"""Long-term factors of users that came after the training, by the training's own loss.

Nothing that serves calls this: they get the mean of `foldin.user_factors`, which is as good or
better on most logs and takes milliseconds (docs/decisions/017-fold-in.md has the figures).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from attrec.config import TrainConfig
from attrec.data.ragged import Ragged
from attrec.data.sequences import Sequences
from attrec.errors import ConfigError
from attrec.foldin import into_ball, user_factors
from attrec.model.network import AttRecNetwork

_LEAST = 1e-12
_HINGES_AT_ONCE = 131_072
"""Of users fitted together: a few arrays of 1 MB, which stay in a processor's cache."""
_POWER_STEPS, _SAFETY = 20, 1.1
_LOOK_EVERY = 10

Towards = Literal["mean", "zero"]


@dataclass(frozen=True, eq=False)
class FittedUsers:
    """What `fitted_user_factors` found.

    Attributes
    ----------
    factors : (n, d) float64 tensor
        U_u.
    loss : (n,) float64 tensor
        What was minimised, there.
    gap : (n,) float64 tensor, ≥ 0
        No U_u has a loss below ``loss − gap``: this is proved by a dual solution, not estimated.
    """

    factors: torch.Tensor
    loss: torch.Tensor
    gap: torch.Tensor


@torch.no_grad()
def fitted_user_factors(
    network: AttRecNetwork,
    histories: Ragged,
    config: TrainConfig,
    *,
    l2: float = 1.0,
    towards: Towards = "mean",
    negatives: int = 100,
    tolerance: float = 0.01,
    max_iterations: int = 500,
    seed: int = 0,
) -> FittedUsers:
    """Return the U_u with the least training loss of each history, everything else as trained.

    U_u minimises Σ_t Σ_{i∈T⁺} mean_j [y_i + γ − y_j]₊ + λ′ ‖U_u − c‖² over the windows t of the
    history, with y of (10). As ‖U − V_i‖² − ‖U − V_j‖² = −2 U · (V_i − V_j) + ‖V_i‖² − ‖V_j‖²,
    each term is a hinge of a linear function of U_u: the problem is convex. It is solved by
    Chambolle and Pock's primal-dual steps, a block of users at a time, until the duality gap of
    each is small.

    Differs from the loss (11): the negatives of a window are not T fresh draws a step but one
    seeded draw of ``negatives`` items for everybody, of which the mean is taken (T times less than
    the sum); the window's own targets are left out of it. With as many as the catalogue has, it is
    the exact expectation. Dropout is off.

    Parameters
    ----------
    network : AttRecNetwork
        Trained; X, V and W stay as they are.
    histories : Ragged of n lists
        Item indices, oldest first. One of fewer than two events has no window, and gets c.
    config : TrainConfig
        Of the training: T, γ, and with ``norm_clipping`` the unit ball.
    l2 : float, ≥ 0
        λ′; above 0 where there is no ball.
    towards : {"mean", "zero"}
        c: the mean over V that `user_factors` gives, or 0.
    negatives : int, ≥ 1
        Items drawn, without repetition.
    tolerance : float, > 0
        The gap at which a user is done, as a share of the loss at c.
    max_iterations : int, ≥ 1
        Steps after which the search ends in any case; ``gap`` tells what is left.
    seed : int
        Of the draw.

    Returns
    -------
    FittedUsers

    Raises
    ------
    ConfigError
        ``l2``, ``negatives``, ``tolerance`` or ``max_iterations`` is out of range.
    """
    _check_fit(config, l2, negatives, tolerance, max_iterations)
    V = network.item_long.double()
    centre = user_factors(V, histories)
    if towards == "zero":
        centre = torch.zeros_like(centre)
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(network.num_items)[:negatives]
    aim = _Penalty(centre, l2, in_ball=config.norm_clipping)
    factors = aim.inside(centre)
    loss, gap = aim.value(factors), torch.zeros_like(centre[:, 0])
    for rows in _alike(histories.lengths, config.num_targets * len(drawn)):
        hinges = _hinges(network, histories.take(rows), config, drawn)
        place = torch.as_tensor(rows, device=V.device)
        factors[place], loss[place], gap[place] = _least(
            hinges, aim.of(place), tolerance, max_iterations
        )
    return FittedUsers(factors, loss, gap)


def _check_fit(
    config: TrainConfig, l2: float, negatives: int, tolerance: float, max_iterations: int
) -> None:
    if not l2 >= 0 or (l2 == 0 and not config.norm_clipping):
        raise ConfigError(
            f"l2 = {l2!r}: the penalty of a fitted user must be at least 0, and above 0 for a "
            "model without norm_clipping, where nothing else holds the user's row"
        )
    for name, value in (("negatives", negatives), ("max_iterations", max_iterations)):
        if value < 1:
            raise ConfigError(f"{name} = {value!r}: a user's fit takes at least 1")
    if not tolerance > 0:
        raise ConfigError(f"tolerance = {tolerance!r}: must be above 0, such as 0.01")


def _alike(lengths: npt.NDArray[np.int64], hinges_an_event: int) -> list[npt.NDArray[np.int64]]:
    """Rows of histories with windows, in blocks of nearly equal length."""
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 1]
    blocks = []
    while len(order):
        # The longest stands last, and the others are padded to it.
        count = max(1, _HINGES_AT_ONCE // (int(lengths[order[-1]]) * hinges_an_event))
        blocks.append(order[-count:])
        order = order[:-count]
    return blocks


@dataclass(frozen=True, eq=False)
class _Penalty:
    """λ′ ‖U − c‖², and infinite outside the ball where there is one."""

    centre: torch.Tensor
    l2: float
    in_ball: bool

    def of(self, rows: torch.Tensor) -> _Penalty:
        return _Penalty(self.centre[rows], self.l2, self.in_ball)

    def value(self, users: torch.Tensor) -> torch.Tensor:
        return self.l2 * (users - self.centre).square().sum(dim=1)

    def step(self, users: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
        """Minimise the penalty + ‖· − U‖² / (2 size)."""
        pull = 2.0 * self.l2 * size
        return self.inside((users + pull * self.centre) / (1.0 + pull))

    def least_with(self, slope: torch.Tensor) -> torch.Tensor:
        """Return the least of slope · U + penalty over all U."""
        if self.l2 > 0:
            best = self.inside(self.centre - slope / (2.0 * self.l2))
        else:
            best = -slope / slope.norm(dim=1, keepdim=True).clamp(min=_LEAST)
        return (slope * best).sum(dim=1) + self.value(best)

    def inside(self, users: torch.Tensor) -> torch.Tensor:
        return into_ball(users) if self.in_ball else users


@dataclass(frozen=True, eq=False)
class _Hinges:
    """Σ w [a + b · U]₊ of B users with n events, b = −2ω (V_i − V_j), i a target, j a negative.

    Attributes
    ----------
    offsets, weights : (B, n − 1, T, S)
        a, and w: 0 where a hinge is only padding.
    places : (n − 1, T) int64
        Which event is the target.
    taken : (B, n, d)
        V of the events.
    drawn : (S, d)
        V of the negatives.
    scale : float
        2ω.
    """

    offsets: torch.Tensor
    weights: torch.Tensor
    places: torch.Tensor
    taken: torch.Tensor
    drawn: torch.Tensor
    scale: float

    def along(self, users: torch.Tensor) -> torch.Tensor:
        """Return b · U."""
        events = torch.bmm(self.taken, users[:, :, None])[:, :, 0]
        others = users @ self.drawn.T
        return self.scale * (others[:, None, None, :] - events[:, self.places][..., None])

    def back(self, duals: torch.Tensor) -> torch.Tensor:
        """Return Σ α b."""
        events = torch.zeros_like(self.taken[:, :, 0])
        events.index_add_(1, self.places.flatten(), duals.sum(dim=3).flatten(1))
        others = duals.sum(dim=(1, 2)) @ self.drawn
        return self.scale * (others - torch.bmm(events[:, None], self.taken)[:, 0])

    def loss(self, users: torch.Tensor) -> torch.Tensor:
        return (self.weights * (self.offsets + self.along(users)).relu()).sum(dim=(1, 2, 3))

    def norm(self) -> torch.Tensor:
        """Return the largest singular value of b, and a little more."""
        real = self.weights > 0
        users = self.taken[:, -1:].mean(dim=1) + self.taken.mean(dim=1) + 1.0
        size = torch.zeros_like(users[:, :1])
        for _ in range(_POWER_STEPS):
            users = self.back(self.along(users) * real)
            size = users.norm(dim=1, keepdim=True).clamp(min=_LEAST)
            users = users / size
        return _SAFETY * size.sqrt()


def _hinges(
    network: AttRecNetwork, histories: Ragged, config: TrainConfig, drawn: npt.NDArray[np.int64]
) -> _Hinges:
    X, V = network.item_short.double(), network.item_long.double()
    omega, T = network.config.long_term_weight, config.num_targets
    lengths = histories.lengths
    windows = Sequences(histories).windows(
        np.arange(int((lengths - 1).sum())), network.config.window_length, T
    )
    B, n = len(histories), int(lengths.max())
    device = V.device
    real = torch.arange(n - 1)[None] < torch.as_tensor(lengths - 1)[:, None]
    targets = torch.full((B, n - 1, T), -1)
    targets[real] = torch.as_tensor(windows.targets)
    items = torch.zeros(B, n, dtype=torch.int64)
    items[torch.arange(n)[None] < torch.as_tensor(lengths)[:, None]] = torch.as_tensor(
        histories.values.astype(np.int64)
    )
    intents = torch.zeros(B, n - 1, V.shape[1], dtype=V.dtype, device=device)
    intents[real.to(device)] = network.intent(
        torch.as_tensor(windows.inputs, device=device), dtype=torch.float64
    )
    others = torch.as_tensor(drawn)
    untaken = (targets[..., None] != others).all(dim=2, keepdim=True)
    pairs = (targets >= 0)[..., None] & untaken
    weights = (pairs.double() / pairs.sum(dim=3, keepdim=True).clamp(min=1)).to(V)
    chosen, others = targets.clamp(min=0).to(device), others.to(device)
    near = omega * V[chosen].square().sum(dim=3) + (1 - omega) * (
        intents[:, :, None] - X[chosen]
    ).square().sum(dim=3)
    far = omega * V[others].square().sum(dim=1) + (1 - omega) * (
        intents.square().sum(dim=2, keepdim=True)
        - 2 * intents @ X[others].T
        + X[others].square().sum(dim=1)
    )
    return _Hinges(
        config.margin + near[..., None] - far[:, :, None],
        weights,
        (torch.arange(n - 1)[:, None] + 1 + torch.arange(T)).clamp(max=n - 1).to(device),
        V[items.to(device)],
        V[others],
        2 * omega,
    )


def _least(
    hinges: _Hinges, aim: _Penalty, tolerance: float, max_iterations: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Minimise hinges + penalty: the best U, its value, and what a dual solution leaves open.

    [z]₊ w = max of α z over 0 ≤ α ≤ w makes it a saddle point. Each α gives a bound from below,
    Σ α a + min_U (Σ α b · U + penalty), and each U one from above.
    """
    users = ahead = aim.inside(aim.centre)
    duals = torch.zeros_like(hinges.weights)
    norm = hinges.norm()
    # Both sides move about alike: a user by 1, the duals by their half.
    balance = 2.0 / hinges.weights.square().sum(dim=(1, 2, 3))[:, None].sqrt().clamp(min=_LEAST)
    primal, dual = balance / norm, 1.0 / (balance * norm)
    best, upper = users, hinges.loss(users) + aim.value(users)
    lower = torch.zeros_like(upper)  # no hinge and no penalty is negative
    enough = tolerance * upper
    for number in range(1, max_iterations + 1):
        rise = hinges.along(ahead).add_(hinges.offsets).mul_(dual[:, :, None, None])
        duals = torch.minimum(duals.add_(rise).clamp_(min=0), hinges.weights)
        slope = hinges.back(duals)
        moved = aim.step(users - primal * slope, primal)
        shrink = 1.0 / (1.0 + 4.0 * aim.l2 * primal).sqrt()
        primal, dual = primal * shrink, dual / shrink
        users, ahead = moved, moved + shrink * (moved - users)
        if number % _LOOK_EVERY == 0 or number == max_iterations:
            value = hinges.loss(users) + aim.value(users)
            best = torch.where((value < upper)[:, None], users, best)
            upper = torch.minimum(upper, value)
            below = (duals * hinges.offsets).sum(dim=(1, 2, 3)) + aim.least_with(slope)
            lower = torch.maximum(lower, below)
            if bool((upper - lower <= enough).all()):
                break
    return best, upper, (upper - lower).clamp(min=0)
