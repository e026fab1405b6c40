import pytest

from tsar import progress as module
from tsar.progress import progress


def test_a_hidden_bar_is_none_of_tqdm(monkeypatch):
    def fail(*args, **options):
        raise AssertionError("a bar was made")

    monkeypatch.setattr(module, "tqdm", fail)
    with progress(shown=False, total=3) as bar:
        bar.update()
        bar.set_postfix(loss="1")
    assert list(progress(range(3), shown=False, desc="counting")) == [0, 1, 2]
    with pytest.raises(AssertionError, match="a bar was made"):
        progress(range(3), shown=True)
