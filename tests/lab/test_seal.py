import json

import pytest
from lab.seal import BrokenSealError, open_sealed, seal


def test_what_was_sealed_comes_out(tmp_path):
    path = tmp_path / "sealed.json"
    digest = seal(path, {"case": "loss"})
    assert open_sealed(path, digest) == {"case": "loss"}


def test_a_truth_that_was_changed_is_not_opened(tmp_path):
    path = tmp_path / "sealed.json"
    digest = seal(path, {"case": "loss"})
    path.write_text(json.dumps({"case": "blackout", "nonce": ""}))
    with pytest.raises(BrokenSealError, match=r"sealed\.json"):
        open_sealed(path, digest)


def test_two_seals_of_one_truth_differ(tmp_path):
    """Else a list of all truths would tell which was sealed."""
    assert seal(tmp_path / "a", {"case": "loss"}) != seal(tmp_path / "b", {"case": "loss"})


def test_nobody_else_may_read_it(tmp_path):
    path = tmp_path / "sealed.json"
    seal(path, {"case": "loss"})
    assert path.stat().st_mode & 0o077 == 0


def test_no_truth_is_written_over_another(tmp_path):
    path = tmp_path / "sealed.json"
    seal(path, {"case": "loss"})
    with pytest.raises(FileExistsError):
        seal(path, {"case": "blackout"})
