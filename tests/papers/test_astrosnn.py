import jax
import numpy as np
import pytest

from broadsheet.errors import MissingDataError
from broadsheet.networks.token_models import count
from broadsheet.papers.astrosnn import NETWORKS, Language, _batches, _loop, _model, _state_growth, _text


def test_the_papers_size_wants_text_and_reads_enwik8(tmp_path):
    with pytest.raises(MissingDataError, match=r"enwik8 \(mattmahoney.net"):
        _text(Language(documentation=False))
    raw = np.random.default_rng(0).integers(0, 256, 5000).astype(np.uint8)
    (tmp_path / "enwik8").write_bytes(raw.tobytes())
    train, test = _text(Language(documentation=False, data=str(tmp_path / "enwik8"), characters=2000))
    np.testing.assert_array_equal(train, raw[:2000])
    np.testing.assert_array_equal(test, raw[4750:])


@pytest.fixture(scope="module")
def transformer():
    return _model("transformer", 13, 32, 2, jax.random.key(0))


def test_other_kinds_of_networks_have_as_many_parameters(transformer):
    wanted = count(_model("system", 13, 32, 2, jax.random.key(0)))
    for made in (_model("lstm", 13, 32, 2, jax.random.key(0)), transformer):
        assert count(made) == pytest.approx(wanted, rel=0.12)
    for arm in NETWORKS:
        assert count(_model(arm, 13, 8, 1, jax.random.key(0))) == count(_model("system", 13, 8, 1, jax.random.key(0)))


def test_only_the_transformers_state_grows(transformer):
    assert _state_growth(transformer) == pytest.approx(64, rel=1e-2)
    assert _state_growth(_model("system", 13, 8, 1, jax.random.key(0))) == 1


def test_both_tasks_come_at_one_length():
    shapes = {tokens.shape for pairs in (0, 2) for tokens, _ in _batches(pairs, 9, 3, 2, jax.random.key(0))}
    assert shapes == {(3, 11)}


def test_the_plain_loop_fires_as_the_closed_form_says():
    membrane, spikes = _loop(0.3, 12)
    assert (np.flatnonzero(spikes) + 1).tolist() == [5, 11]
    assert membrane[3] == pytest.approx(1.5 * (1 - 0.8**4))
