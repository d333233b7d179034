import errno
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from aer_jax.data import records
from aer_jax.data.records import Record, RecordReader, RecordWriter, shard_name
from aer_jax.errors import UserError

RNG = np.random.default_rng(0)
RECORDS = [Record(f"utt-{i}", "s", "ü", 8000 + i, RNG.bytes(1000)) for i in range(20)]


@pytest.fixture
def store(tmp_path):
    """Twenty records in shards of about 5 kB."""
    with RecordWriter(tmp_path, shard_bytes=5000) as writer:
        places = [writer.add(record) for record in RECORDS]
    paths = [tmp_path / shard_name(i, writer.shards) for i in range(writer.shards)]
    return paths, places


def test_shards_are_named_and_filled_in_order(store):
    paths, places = store
    assert [path.name for path in paths] == [f"records-0000{i}-of-00004.array_record" for i in range(4)]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == [path.name for path in paths]
    assert places == [divmod(i, 5) for i in range(20)]


def test_any_record_can_be_read(store):
    paths, places = store
    reader = RecordReader(paths)
    for i in RNG.permutation(20):
        assert reader.read(*places[i]) == RECORDS[i]


def test_threads_and_other_processes_open_for_themselves(store):
    paths, places = store
    reader = RecordReader(paths)
    reader.read(0, 0)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda i: reader.read(*places[i % 20]), range(400))) == RECORDS * 20
    assert pickle.loads(pickle.dumps(reader)).read(*places[7]) == RECORDS[7]


def test_damage_is_one_sentence(store):
    paths, _ = store
    with pytest.raises(UserError, match=r"record 99 of .*run `aer-jax prepare` again"):
        RecordReader(paths).read(0, 99)
    data = bytearray(paths[0].read_bytes())
    data[100:4000] = bytes(3900)
    paths[0].write_bytes(data)
    paths[1].write_bytes(b"not records")
    paths[2].unlink()
    for shard in range(3):
        with pytest.raises(UserError, match=f"record 1 of .*{paths[shard].name} cannot be read"):
            RecordReader(paths).read(shard, 1)


def test_a_full_disk_is_an_os_error(tmp_path, monkeypatch):
    class FullDisk:
        def __init__(self, path, options):
            pass

        def write(self, data=b""):
            raise RuntimeError("write() failed: No space left on device; writing x; at byte 1048576")

        close = write

    monkeypatch.setattr(records, "ArrayRecordWriter", FullDisk)
    writer = RecordWriter(tmp_path)
    with pytest.raises(OSError) as error, writer:
        writer.add(RECORDS[0])
    assert error.value.errno == errno.ENOSPC
