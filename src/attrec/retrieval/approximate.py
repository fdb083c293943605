"""FAISS over the same keys: flat, IVF and HNSW, with exact distances and a measured recall."""

from __future__ import annotations

import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from attrec.data.ragged import Ragged
from attrec.errors import ArtifactError, MissingExtraError, RequestError
from attrec.files import write_whole
from attrec.retrieval.contract import Index, nearest, nothing
from attrec.retrieval.index import ExactIndex, Neighbours, squared_distances

_MARGIN = 16
"""Candidates beyond k, which float64 puts into order."""
_FEW_ITEMS = 4096
_SMALL_SHARE = 0.05
"""Where a filter leaves fewer, or a smaller share, exact search of what is left is quicker."""
_QUERIES_AT_ONCE = 256
_LARGEST_NORM = 1e15
_UNIT_ROUNDOFF = 2.0**-24
_SMALLEST_NORMAL = 2.0**-126
_MOST_CENTRES_BY_ROOT, _FEWEST_KEYS_A_CENTRE = 4, 39
"""Lists: 4 √N, but with 39 keys each, which FAISS asks for."""
_TRAINED_KEYS_A_CENTRE = 64
_HIGHEST_EF = 4096


class FaissIndex(ABC):
    """A FAISS index behind the contract of `attrec.retrieval.contract.Index`.

    FAISS finds more candidates than are asked for; their distances are computed again in float64
    and order the list. What all queries must leave out is hidden from FAISS by a selector; what
    one query must leave out is taken out of its candidates, of which there are as many more. A
    filter that leaves a share s of the items makes an approximate search look s times less closely,
    so its effort is divided by s. A list that is still too short is made by exact search, and so
    are lists under a filter that leaves few items.

    Parameters
    ----------
    keys : (N, D) float32 tensor
        One key per item; FAISS holds a copy of them.
    native : FAISS index of these keys, optional
        Its ids are item indices; built where it is missing.

    Attributes
    ----------
    effort : int
        How far a search looks: FAISS's ``nprobe`` or ``efSearch``; nothing in a flat index.
    recall : Recall or None
        What `tune_recall` measured.

    Raises
    ------
    MissingExtraError
        FAISS is not installed.
    RequestError
        A key is not finite, or has a norm above 1e15.
    """

    kind: ClassVar[str]
    effort_name: ClassVar[str] = ""
    """What FAISS calls the effort."""

    def __init__(self, keys: torch.Tensor, native: Any, effort: int) -> None:
        self.keys = _on_cpu(keys)
        self._exact = ExactIndex(self.keys)
        self.native = self._built() if native is None else native
        self.effort = min(effort, self.efforts[1])
        self.recall: Recall | None = None

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self.keys)

    @property
    def dimension(self) -> int:
        """How many numbers a key has."""
        return self.keys.shape[1]

    @abstractmethod
    def _built(self) -> Any:
        """Build FAISS's index of the keys."""

    @property
    @abstractmethod
    def efforts(self) -> tuple[int, int]:
        """The least and the most that a search may look."""

    @property
    @abstractmethod
    def parameters(self) -> dict[str, int]:
        """The index's parameters, under the names that FAISS has for them."""

    @abstractmethod
    def _search_parameters(self, selector: Any, effort: int) -> Any:
        """Return FAISS's parameters of one search."""

    def _sees_all(self, effort: int) -> bool:
        """Tell whether such a search looks at every key."""
        return False

    @torch.no_grad()
    def search(
        self,
        queries: torch.Tensor,
        k: int,
        *,
        exclude: Ragged | None = None,
        allow: npt.ArrayLike | None = None,
        deny: npt.ArrayLike | None = None,
    ) -> Neighbours:
        """Return k items of each query, nearest first; see `Index.search`."""
        queries = _checked(queries, k)
        scope = _Scope(len(self), allow, deny)
        if scope.is_small:
            return self._exact.search(queries, k, exclude=exclude, allow=allow, deny=deny)
        hidden = _Hidden(scope, len(queries), exclude)
        answer, settled = self._by_faiss(queries, k, hidden)
        rows = np.flatnonzero(~settled)
        if len(rows):
            left = None if exclude is None else exclude.take(rows)
            found = self._exact.search(
                queries[torch.from_numpy(rows)], k, exclude=left, allow=allow, deny=deny
            )
            answer.indices[rows], answer.distances[rows] = found
        return answer

    @torch.no_grad()
    def _unaided(self, queries: torch.Tensor, k: int) -> Neighbours:
        """Return lists as any program that reads FAISS finds them: short ones stay short."""
        if self._sees_all(self.effort):
            return self.search(queries, k)
        hidden = _Hidden(_Scope(len(self), None, None), len(queries), None)
        return self._by_faiss(_checked(queries, k), k, hidden)[0]

    def _by_faiss(
        self, queries: torch.Tensor, k: int, hidden: _Hidden
    ) -> tuple[Neighbours, npt.NDArray[np.bool_]]:
        """Return the lists that FAISS's candidates make, and which need no exact search."""
        scope = hidden.scope
        effort = min(self.efforts[1], -int(-self.effort // scope.share))
        settings = self._search_parameters(scope.selector(), effort)
        answer = nothing(len(queries), k)
        settled = np.zeros(len(queries), dtype=bool)
        for rows, width in self._parts(hidden.counts, k, scope.size):
            found, proved = self._candidates(queries, rows, k, width, hidden, settings)
            answer.indices[rows], answer.distances[rows] = found
            enough = (found.indices >= 0).sum(axis=1) >= np.minimum(
                k, scope.size - hidden.counts[rows]
            )
            settled[rows] = enough & (proved | (not self._sees_all(effort)))
        return answer, settled

    def _parts(
        self, hidden: npt.NDArray[np.int64], k: int, size: int
    ) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
        """Yield rows that are searched together, and how many candidates each gets.

        The number depends on the row alone: a query finds the same in any company.
        """
        powers = np.where(hidden > 0, 2 ** np.ceil(np.log2(np.maximum(hidden, 1))), 0)
        widths = np.minimum(size, k + _MARGIN + powers.astype(np.int64))
        for width in np.unique(widths):
            rows = np.flatnonzero(widths == width)
            for start in range(0, len(rows), _QUERIES_AT_ONCE):
                yield rows[start : start + _QUERIES_AT_ONCE], int(width)

    def _candidates(
        self,
        queries: torch.Tensor,
        rows: npt.NDArray[np.int64],
        k: int,
        width: int,
        hidden: _Hidden,
        settings: Any,
    ) -> tuple[Neighbours, npt.NDArray[np.bool_]]:
        """Return the best k of FAISS's candidates in order, and which lists are proved.

        The proof holds where FAISS looked at every key. It errs by at most e (‖q‖² + ‖k‖²),
        e = 1.01 (2D + 16) 2⁻²⁴ (see `ExactIndex`), plus what underflows. A key that it left out
        and that is as near as the k-th distance t has ‖k‖ ≤ ‖q‖ + √t, and a distance not below
        FAISS's last one less that error: where this exceeds t, there is none.
        """
        part = queries[torch.from_numpy(rows)]
        rough, items = self._ask(part.float().numpy(), width, settings)
        absent = (items < 0) | hidden.holds(rows, items)
        exact = squared_distances(part, self.keys, torch.from_numpy(np.maximum(items, 0))).numpy()
        found = nearest(np.where(absent, -1, items), np.where(absent, np.inf, exact), k)
        farthest = found.distances[:, -1]
        norms = part.norm(dim=1).numpy()
        dimension = part.shape[1]
        error = 1.01 * (2 * dimension + 16) * _UNIT_ROUNDOFF
        bound = rough[:, -1] - error * (norms**2 + (norms + np.sqrt(farthest)) ** 2)
        proved = farthest < bound - 8.0 * (dimension + 1) * _SMALLEST_NORMAL
        return found, proved | (items[:, -1] < 0) | (width == hidden.scope.size)

    def _ask(self, vectors: npt.NDArray[np.float32], width: int, settings: Any) -> Any:
        """Return FAISS's distances and items (B, width)."""
        with _threads(len(vectors)):
            return self.native.search(vectors, width, params=settings)

    def save(self, path: str | Path) -> dict[str, Any]:
        """Write the index for any program that reads FAISS, and ``PATH.json`` beside it.

        The parameters are set in the index itself, so that whoever reads it searches with them.
        Each file is written whole or not at all; the JSON comes last and names the other's
        SHA-256, so that two files of different indexes are never taken for one.

        Returns
        -------
        dict
            What the JSON file holds: kind, parameters, recall, and what the keys were.

        Raises
        ------
        RequestError
            A file cannot be written.
        """
        faiss = need_faiss()
        self._set_effort()

        def write(file: Path) -> None:
            try:
                faiss.write_index(self.native, str(file))
            except RuntimeError as error:
                raise OSError(_last_line(error)) from error

        path = write_whole(path, write)
        document = {
            "kind": self.kind,
            "faiss_version": faiss.__version__,
            "metric": "squared Euclidean",
            "items": len(self),
            "dimension": int(self.keys.shape[1]),
            "parameters": self.parameters,
            "recall": None if self.recall is None else asdict(self.recall),
            "keys_sha256": _digest(self.keys),
            "sha256": _file_digest(path),
        }
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        write_whole(_beside(path), lambda file: file.write_text(text, encoding="ascii"))
        return document

    @abstractmethod
    def _set_effort(self) -> None:
        """Set the effort in FAISS's own index."""


class FaissFlat(FaissIndex):
    """FAISS's exhaustive search: the very lists of `ExactIndex`.

    Parameters
    ----------
    keys : (N, D) float32 tensor
    """

    kind = "flat"

    def __init__(self, keys: torch.Tensor, *, native: Any = None) -> None:
        super().__init__(keys, native, 1)

    def _built(self) -> Any:
        native = need_faiss().IndexFlatL2(self.keys.shape[1])
        native.add(self.keys.numpy())
        return native

    @property
    def efforts(self) -> tuple[int, int]:
        """There is nothing to choose."""
        return 1, 1

    @property
    def parameters(self) -> dict[str, int]:
        """A flat index has none."""
        return {}

    def _search_parameters(self, selector: Any, effort: int) -> Any:
        return None if selector is None else need_faiss().SearchParameters(sel=selector)

    def _sees_all(self, effort: int) -> bool:
        return True

    def _set_effort(self) -> None:
        """Do nothing: there is none."""


class FaissIVF(FaissIndex):
    """Keys in lists around centres, of which a search looks at the nearest few.

    Parameters
    ----------
    keys : (N, D) float32 tensor
    lists : int, optional
        FAISS's ``nlist``; 4 √N by default, but no more than N / 39.
    probes : int
        FAISS's ``nprobe``: lists that a search looks at; with all of them it is exact.
    seed : int
        Of the clustering.
    """

    kind = "ivf"
    effort_name = "nprobe"

    def __init__(
        self,
        keys: torch.Tensor,
        *,
        lists: int | None = None,
        probes: int = 16,
        seed: int = 0,
        native: Any = None,
    ) -> None:
        self._lists, self._seed = lists, seed
        super().__init__(keys, native, probes)

    def _built(self) -> Any:
        faiss, keys = need_faiss(), self.keys.numpy()
        lists = self._lists
        if lists is None:
            by_root = round(_MOST_CENTRES_BY_ROOT * len(keys) ** 0.5)
            lists = min(by_root, len(keys) // _FEWEST_KEYS_A_CENTRE)
        lists = max(1, min(lists, len(keys)))
        native = faiss.IndexIVFFlat(faiss.IndexFlatL2(keys.shape[1]), keys.shape[1], lists)
        native.cp.seed = self._seed
        native.cp.min_points_per_centroid = 1
        native.cp.max_points_per_centroid = _TRAINED_KEYS_A_CENTRE
        if len(keys):
            native.train(keys)
            native.add(keys)
        return native

    @property
    def efforts(self) -> tuple[int, int]:
        """One list, and all of them."""
        return 1, int(self.native.nlist)

    @property
    def parameters(self) -> dict[str, int]:
        """``nlist`` and ``nprobe``."""
        return {"nlist": int(self.native.nlist), "nprobe": self.effort}

    def _search_parameters(self, selector: Any, effort: int) -> Any:
        return need_faiss().SearchParametersIVF(sel=selector, nprobe=effort)

    def _sees_all(self, effort: int) -> bool:
        return effort >= self.efforts[1]

    def _ask(self, vectors: npt.NDArray[np.float32], width: int, settings: Any) -> Any:
        # One by one: for a batch FAISS takes another way to the centres, which rounds otherwise.
        single = [
            super(FaissIVF, self)._ask(vectors[row : row + 1], width, settings)
            for row in range(len(vectors))
        ]
        return tuple(np.concatenate(column) for column in zip(*single, strict=True))

    def _set_effort(self) -> None:
        self.native.nprobe = self.effort


class FaissHNSW(FaissIndex):
    """A graph of near keys, which a search walks. Nothing can be removed from it.

    Parameters
    ----------
    keys : (N, D) float32 tensor
    neighbours : int
        FAISS's ``M``: edges of a key on each level, twice as many on the lowest.
    construction : int
        FAISS's ``efConstruction``: how far the builder looks for them.
    ef : int
        FAISS's ``efSearch``: how many keys a search keeps in sight.
    """

    kind = "hnsw"
    effort_name = "efSearch"

    def __init__(
        self,
        keys: torch.Tensor,
        *,
        neighbours: int = 32,
        construction: int = 200,
        ef: int = 64,
        native: Any = None,
    ) -> None:
        self._neighbours, self._construction = neighbours, construction
        super().__init__(keys, native, ef)

    def _built(self) -> Any:
        native = need_faiss().IndexHNSWFlat(self.keys.shape[1], self._neighbours)
        native.hnsw.efConstruction = self._construction
        native.add(self.keys.numpy())
        return native

    @property
    def efforts(self) -> tuple[int, int]:
        """From 16 keys in sight up to 4096."""
        return 16, _HIGHEST_EF

    @property
    def parameters(self) -> dict[str, int]:
        """``M``, ``efConstruction`` and ``efSearch``."""
        graph = self.native.hnsw
        return {
            "M": int(graph.nb_neighbors(1)),
            "efConstruction": int(graph.efConstruction),
            "efSearch": self.effort,
        }

    def _search_parameters(self, selector: Any, effort: int) -> Any:
        return need_faiss().SearchParametersHNSW(sel=selector, efSearch=effort)

    def _set_effort(self) -> None:
        self.native.hnsw.efSearch = self.effort


KINDS: dict[str, type[FaissFlat | FaissIVF | FaissHNSW]] = {
    each.kind: each for each in (FaissFlat, FaissIVF, FaissHNSW)
}


@dataclass(frozen=True)
class Recall:
    """How much of the exact lists an index finds.

    Attributes
    ----------
    recall : float
        Share of the k nearest items that are found; one as near as the k-th counts as one of them.
    k : int
    target : float
    queries : int
        It was measured on so many.
    """

    recall: float
    k: int
    target: float
    queries: int


def tune_recall(
    index: FaissIndex, exact: Index, queries: torch.Tensor, target: float, *, k: int = 50
) -> Recall:
    """Choose the least effort with which an index finds ``target`` of the exact lists.

    It is set in the index, with the measured recall. What exact search adds to lists that FAISS
    leaves short is not counted: other programs that read the index have none.

    Parameters
    ----------
    index : FaissIndex
    exact : Index
        Of the same keys.
    queries : (B, D) float64 tensor
        Such as will be asked: the model's own.
    target : float, 0 < target ≤ 1
    k : int
        Length of the lists; at most the number of items.

    Raises
    ------
    RequestError
        The target is not reached by the most effort, or there is nothing to measure.
    """
    check_recall(target)
    if len(index) == 0 or len(queries) == 0:
        raise RequestError("recall cannot be measured without queries and items; give some of both")
    k = min(k, len(index))
    limits = exact.search(queries, k).distances[:, -1:]
    before = index.effort
    measured: dict[int, float] = {}

    def reaches(effort: int) -> bool:
        index.effort = effort
        measured[effort] = float((index._unaided(queries, k).distances <= limits).mean())
        return measured[effort] >= target

    (high, most), low = index.efforts, 0
    while not reaches(high):
        if high == most:
            index.effort = before
            raise RequestError(
                f"a {index.kind} index finds {measured[high]:.4f} of the nearest items at most, "
                f"and a recall of {target} was asked for; ask for less, or take ivf or flat"
            )
        low, high = high, min(2 * high, most)
    while low and high - low > max(1, high // 16):
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    index.effort = high
    index.recall = Recall(measured[high], k, target, len(queries))
    return index.recall


def check_recall(target: float) -> None:
    """Raise unless it is a share that can be asked for.

    Raises
    ------
    RequestError
    """
    if not 0.0 < target <= 1.0:
        raise RequestError(f"recall = {target!r}: ask for a share above 0 and at most 1")


def load_faiss(path: str | Path, keys: torch.Tensor) -> FaissFlat | FaissIVF | FaissHNSW:
    """Read what `FaissIndex.save` wrote.

    Parameters
    ----------
    path : path
        Of the FAISS file; its JSON lies beside it.
    keys : (N, D) float32 tensor
        Those that it was built over.

    Raises
    ------
    ArtifactError
        A file is missing or damaged, or belongs to other keys.
    MissingExtraError
        FAISS is not installed.
    """
    faiss, path = need_faiss(), Path(path)
    try:
        document = json.loads(_beside(path).read_bytes())
        whole = document["sha256"] == _file_digest(path)
        kind, recall = KINDS[document["kind"]], document["recall"]
        measured = None if recall is None else Recall(**recall)
        effort = document["parameters"].get(kind.effort_name)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{error.filename}: is missing; an index is a FAISS file and the JSON beside it, which "
            "`attrec export` writes together"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{_beside(path)}: is damaged ({error}); export again") from error
    if not whole:
        raise ArtifactError(f"{path}: is not the file that its JSON names; export again")
    if document.get("keys_sha256") != _digest(_on_cpu(keys)):
        raise ArtifactError(
            f"{path}: is the index of other keys than the model's; export the model again"
        )
    index = kind(keys, native=faiss.read_index(str(path)))
    index.effort = index.effort if effort is None else effort
    index.recall = measured
    return index


class _Scope:
    """The items that one call may find."""

    def __init__(self, items: int, allow: npt.ArrayLike | None, deny: npt.ArrayLike | None) -> None:
        self.items = items
        self.mask: npt.NDArray[np.bool_] | None = None
        if allow is not None or deny is not None:
            self.mask = np.full(items, allow is None)
            if allow is not None:
                self.mask[np.asarray(allow, dtype=np.int64)] = True
            if deny is not None:
                self.mask[np.asarray(deny, dtype=np.int64)] = False
        self.size = items if self.mask is None else int(self.mask.sum())

    @property
    def share(self) -> float:
        return self.size / self.items

    @property
    def is_small(self) -> bool:
        """Tell whether to search exactly; where nothing is left there is no other way."""
        limited = self.size < self.items
        few = self.size <= _FEW_ITEMS or self.share < _SMALL_SHARE
        return self.size == 0 or (limited and few)

    def selector(self) -> Any:
        """Return FAISS's selector of these items; None for all."""
        if self.mask is None:
            return None
        return need_faiss().IDSelectorBitmap(np.packbits(self.mask, bitorder="little"))


class _Hidden:
    """What each query must leave out of the items that it may find."""

    def __init__(self, scope: _Scope, queries: int, exclude: Ragged | None) -> None:
        self.scope = scope
        self._codes = np.zeros(0, dtype=np.int64)
        if exclude is not None:
            items = exclude.values.astype(np.int64)
            real = (items >= 0) & (items < scope.items)
            if scope.mask is not None:
                real[real] = scope.mask[items[real]]
            self._codes = np.unique(exclude.row_of_value[real] * scope.items + items[real])
        self.counts = np.bincount(self._codes // max(1, scope.items), minlength=queries)

    def holds(
        self, rows: npt.NDArray[np.int64], items: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """(B, m) bool: the row must leave the item out."""
        if not len(self._codes):
            return np.zeros(items.shape, dtype=bool)
        codes = rows[:, None] * self.scope.items + np.maximum(items, 0)
        place = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        same: npt.NDArray[np.bool_] = self._codes[place] == codes
        return same


def _checked(queries: torch.Tensor, k: int) -> torch.Tensor:
    """Return queries that can be answered, in float64 on the CPU."""
    if k < 1:
        raise RequestError(f"k = {k}: ask for at least 1 item")
    queries = queries.detach().to(device="cpu", dtype=torch.float64)
    if not bool((queries.square().sum(dim=1) <= _LARGEST_NORM**2).all()):
        raise RequestError("a query vector is not finite or has a norm above 1e15")
    return queries


@contextlib.contextmanager
def _threads(queries: int) -> Iterator[None]:
    """Let a single query run on one thread: it takes less time than waking others."""
    faiss = need_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if queries == 1 else before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def need_faiss() -> Any:
    """Return the library, or say how to install it."""
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("FAISS", "vectors", "an index of this kind") from error
    return faiss


def _on_cpu(keys: torch.Tensor) -> torch.Tensor:
    return keys.detach().to(device="cpu", dtype=torch.float32).contiguous()


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _digest(keys: torch.Tensor) -> str:
    return hashlib.sha256(keys.numpy().data).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _last_line(error: RuntimeError) -> str:
    """Take what FAISS says of the system out of where in FAISS it happened."""
    return str(error).rsplit(": ", maxsplit=1)[-1]
