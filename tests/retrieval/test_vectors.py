import numpy as np
import pytest
import torch
from tests.paper import paper_model

from attrec.data.cases import Cases
from attrec.data.ragged import Ragged
from attrec.data.sequences import last_items
from attrec.model.network import AttRecNetwork
from attrec.retrieval import vectors
from attrec.retrieval.vectors import NetworkScorer, item_keys, query_vectors, user_vectors

HISTORIES = Ragged.from_lists([[0, 1, 2, 3, 4], [6], [2, 2, 5]])
USERS = np.array([0, 3, 1])


def network(dtype=torch.float64, **options):
    options = {
        "embedding_dim": 6,
        "window_length": 3,
        "architecture": "paper",
        "init_std": 0.5,
        **options,
    }
    return AttRecNetwork(paper_model(**options), 4, 7, seed=5, dtype=dtype)


def every_distance(net, users, histories):
    windows = torch.as_tensor(last_items(histories, net.config.window_length))
    candidates = torch.arange(net.num_items).expand(len(users), -1)
    return net.distances(torch.as_tensor(users), windows, candidates).detach()


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("aggregation", ["mean", "sum", "max", "min"])
def test_the_distance_of_query_and_key_is_the_models(weight, aggregation):
    net = network(long_term_weight=weight, aggregation=aggregation)
    queries = query_vectors(net, USERS, HISTORIES)
    keys = item_keys(net, torch.float64)
    found = (queries[:, None] - keys).square().sum(dim=2)
    torch.testing.assert_close(found, every_distance(net, USERS, HISTORIES), atol=1e-12, rtol=0)
    assert not queries.requires_grad
    assert not keys.requires_grad


def test_keys_are_rounded_once_and_do_not_depend_on_blocks(monkeypatch):
    net = network()
    exact = item_keys(net, torch.float64)
    assert torch.equal(item_keys(net), exact.float())
    monkeypatch.setattr(vectors, "_ROWS_AT_ONCE", 2)
    assert torch.equal(item_keys(net, torch.float64), exact)


def test_users_without_a_row_are_folded_in_from_the_history():
    net = network()
    found = user_vectors(net, np.array([-1, 4, 2]), HISTORIES)
    torch.testing.assert_close(found[0], net.item_long[:5].mean(dim=0).detach())
    torch.testing.assert_close(found[1], net.item_long[6].detach())
    assert torch.equal(found[2], net.user_long[2].detach())
    halved = user_vectors(net, np.array([-1]), HISTORIES.take(np.array([1])), l2=1.0)
    torch.testing.assert_close(halved[0], net.item_long[6].detach() / 2)


def test_queries_of_a_float32_network_are_computed_in_float64():
    net = network(torch.float32)
    queries = query_vectors(net, USERS, HISTORIES)
    assert queries.dtype == torch.float64
    twin = query_vectors(net.double(), USERS, HISTORIES)
    torch.testing.assert_close(queries, twin, atol=1e-14, rtol=0)


def test_the_scorer_gives_float32_distances_of_the_whole_catalogue():
    net = network(torch.float32)
    cases = Cases(np.array([0, -1, 1]), HISTORIES, HISTORIES)
    found = NetworkScorer(net)(cases)
    assert found.dtype == torch.float32
    assert found.shape == (3, 7)
    expected = every_distance(net, np.array([0, 0, 1]), HISTORIES)
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]], atol=1e-5, rtol=0)
    folded = query_vectors(net, np.array([-1]), HISTORIES.take(np.array([1])))
    late = (folded[:, None] - item_keys(net, torch.float64)).square().sum(dim=2)
    torch.testing.assert_close(found[1].double(), late[0], atol=1e-5, rtol=0)


def test_no_cases_no_rows():
    empty = Ragged.from_lists([])
    assert query_vectors(network(), np.zeros(0, dtype=np.int64), empty).shape == (0, 12)
