import errno
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from aer_jax.data import records
from aer_jax.data.records import Record, RecordReader, ShardWriter, shard_name
from aer_jax.errors import UserError
from aer_jax.files.content_hash import file_sha256

RNG = np.random.default_rng(0)
RECORDS = [Record(f"utt-{i}", "s", "ü", 8000 + i, RNG.bytes(1000)) for i in range(20)]


@pytest.fixture
def store(tmp_path):
    """Twenty records in four shards."""
    paths = [tmp_path / shard_name(i, 4) for i in range(4)]
    for shard, path in enumerate(paths):
        with ShardWriter(path) as writer:
            assert [writer.add(record) for record in RECORDS[5 * shard : 5 * shard + 5]] == list(range(5))
    return paths, [divmod(i, 5) for i in range(20)]


def test_a_shard_may_be_empty(tmp_path):
    """All of its clips may be unusable."""
    with ShardWriter(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").is_file()
    with pytest.raises(UserError, match="record 0 of"):
        RecordReader([tmp_path / "empty"]).read(0, 0)


def test_the_same_records_make_the_same_file(store, tmp_path):
    with ShardWriter(tmp_path / "again") as writer:
        for record in RECORDS[:5]:
            writer.add(record)
    assert file_sha256(tmp_path / "again") == file_sha256(store[0][0]) != file_sha256(store[0][1])


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


def test_a_flipped_bit_is_noticed_or_harmless(tmp_path):
    """ArrayRecord keeps a checksum of every chunk: what is read is what was written, or refused."""
    path, few = tmp_path / "shard", RECORDS[:3]
    with ShardWriter(path) as writer:
        for record in few:
            writer.add(record)
    whole, noticed = path.read_bytes(), 0
    for at in range(0, 4500, 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        reader = RecordReader([path])
        try:
            assert [reader.read(0, row) for row in range(3)] == few
        except UserError:
            noticed += 1
    assert noticed > 400


def test_a_full_disk_is_an_os_error(tmp_path, monkeypatch):
    class FullDisk:
        def __init__(self, path, options):
            pass

        def write(self, data=b""):
            raise RuntimeError("write() failed: No space left on device; writing x; at byte 1048576")

        close = write

    monkeypatch.setattr(records, "ArrayRecordWriter", FullDisk)
    with pytest.raises(OSError) as error, ShardWriter(tmp_path / "full") as writer:
        writer.add(RECORDS[0])
    assert error.value.errno == errno.ENOSPC
