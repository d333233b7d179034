import pytest
from small_runs import small_dataset, small_run


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    return small_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="session")
def runs(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [
        small_run(folder / "human", dataset, "human", 0.6, 1),
        small_run(folder / "synthetic", dataset, "synthetic", 0.2, 2),
        small_run(folder / "combined", dataset, "combined", 0.5, 3, ratio=0.0),
    ]
