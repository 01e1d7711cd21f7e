"""SciTail's two test sets."""

import json

from rendering import config_of

from adept.config.run import task_of
from adept.data.dataset import load_data
from adept.models.tiny import fixture_rows


def test_scitails_test_set_is_half_the_validation_set_or_the_hubs(tmp_path):
    (tmp_path / "scitail").mkdir()
    for split, count in (("train", 10), ("validation", 7), ("test", 4)):
        rows = "".join(json.dumps(fixture_rows("scitail")[i % 2]) + "\n" for i in range(count))
        (tmp_path / "scitail" / f"{split}.jsonl").write_text(rows)

    def splits(**flags):
        config = config_of("scitail", data_dir=str(tmp_path), **flags)
        return task_of(config).splits, load_data(task_of(config), config)

    names, data = splits(scitail_test="hub")
    assert names == ("train", "validation", "test") and tuple(data.sizes.values()) == (10, 7, 4)
    assert [e.id for e in data.test] == ["test:0", "test:1", "test:2", "test:3"]
    for protocol in ("paper", "official"):
        names, data = splits(protocol=protocol)
        assert names == ("train", "validation") and tuple(data.sizes.values()) == (10, 3, 4)
        assert {e.id for e in data.validation + data.test} == {f"validation:{i}" for i in range(7)}
