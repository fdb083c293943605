"""Adagrad on the rows a step touched, and norm clipping (12)."""

from __future__ import annotations

import torch

from attrec.native.pages import on_large_pages

EPSILON = 1e-10
"""Added to the root of the accumulator, as `torch.optim.Adagrad` does."""


def clip_rows(rows: torch.Tensor) -> torch.Tensor:
    """Pull rows with a norm above 1 back to the unit sphere, in place (12).

    Parameters
    ----------
    rows : (n, d) tensor

    Returns
    -------
    (n, d) tensor
        ``rows`` itself; rows inside the ball keep their bits.
    """
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows.div_(norms.clamp_(min=1.0))


class RowAdagrad:
    """Adagrad with one accumulator per entry of a table, which visits only given rows.

    acc ← acc + g², θ ← θ − lr · g / (√acc + ε): for the rows with a gradient exactly what
    `torch.optim.Adagrad` does, and for all others nothing, which is what it does with g = 0.
    Row-wise, one accumulator per row takes the mean of its g²: 1/d of the state's memory.

    Parameters
    ----------
    table : (n, d) tensor
        Changed in place.
    learning_rate : float
    initial_accumulator : float
        Where acc starts.
    clip : bool
        Keep the visited rows in the unit ball (12), after the step.
    row_wise : bool
        One accumulator per row.
    """

    def __init__(
        self,
        table: torch.Tensor,
        learning_rate: float,
        initial_accumulator: float,
        clip: bool,
        row_wise: bool = False,
    ) -> None:
        self.table = table
        width = 1 if row_wise else table.shape[1]
        self.accumulator = on_large_pages(table.new_empty(len(table), width))
        self.accumulator.fill_(initial_accumulator)
        self.learning_rate = learning_rate
        self.clip = clip
        self.row_wise = row_wise

    def step(self, gradient: torch.Tensor, rows: torch.Tensor | None = None) -> None:
        """Update the rows.

        Parameters
        ----------
        gradient : (r, d) tensor
            Used up as scratch space.
        rows : (r,) int64, optional
            Which rows, each once; all rows of the table when left out.
        """
        if rows is None:
            self._update(self.table, self.accumulator, gradient)
            return
        values = self.table.index_select(0, rows)
        accumulator = self.accumulator.index_select(0, rows)
        self._update(values, accumulator, gradient)
        self.table.index_copy_(0, rows, values)
        self.accumulator.index_copy_(0, rows, accumulator)

    def _update(
        self, values: torch.Tensor, accumulator: torch.Tensor, gradient: torch.Tensor
    ) -> None:
        if self.row_wise:
            accumulator.add_(gradient.square().mean(dim=1, keepdim=True))
        else:
            accumulator.addcmul_(gradient, gradient)
        values.addcdiv_(gradient, accumulator.sqrt().add_(EPSILON), value=-self.learning_rate)
        if self.clip:
            clip_rows(values)
