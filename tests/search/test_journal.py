"""The journal: whole groups or nothing, whatever was cut; Optuna's own tools read it."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from search.config import ConfigError, build_config
from search.journal import Journal
from search.messages import Report
from search.study import JOURNAL, create_study, open_study, rows_of

GROUPS = [[1], [2, 3, 4], [5, 6], [7]]  # records by number, as `written` groups them


def test_records_come_back_in_order(written: Path) -> None:
    assert read(written) == [{"n": n, "text": "a\nb"} for n in range(1, 8)]


def test_records_appended_since_are_read_without_the_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    assert list(journal.read_logs(0)) == []
    journal.append_logs([{"n": 1}])
    (tmp_path / "j").unlink()
    assert list(journal.read_logs(0)) == [{"n": 1}]
    assert list(journal.read_logs(1)) == []
    journal.close()


def test_a_cut_at_any_byte_leaves_whole_groups(written: Path, tmp_path: Path) -> None:
    content = written.read_bytes()
    ends = group_ends(content)
    for length in range(len(content) + 1):
        path = tmp_path / "cut"
        path.write_bytes(content[:length])
        journal = Journal(path)
        whole = max(end for end in ends if end <= length)
        assert journal.lost_bytes == length - whole
        assert len(list(journal.read_logs(0))) == sum(map(len, GROUPS[: ends.index(whole)]))
        assert path.read_bytes() == content[:whole]
        journal.close()


def test_a_cut_journal_is_appended_to_after_its_last_whole_group(written: Path) -> None:
    written.write_bytes(written.read_bytes()[:-3])
    journal = Journal(written)
    journal.append_logs([{"n": 8}])
    journal.close()
    assert [record["n"] for record in read(written)] == [1, 2, 3, 4, 5, 6, 8]


def test_a_reader_leaves_the_file_and_sees_whole_groups(written: Path) -> None:
    cut = written.read_bytes().splitlines(keepends=True)[:5]  # in the middle of the third group
    written.write_bytes(b"".join(cut))
    reader = Journal(written, read_only=True)
    assert [record["n"] for record in reader.read_logs(0)] == [1, 2, 3, 4]
    reader.close()
    assert written.read_bytes() == b"".join(cut)


def test_a_group_is_not_on_disk_before_its_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    assert list(journal.read_logs(0)) == []
    with journal.group():
        journal.append_logs([{"n": 1}])
        with journal.group():
            journal.append_logs([{"n": 2}])
        assert (tmp_path / "j").read_bytes() == b""
        assert [record["n"] for record in journal.read_logs(0)] == [1, 2]
    assert (tmp_path / "j").read_bytes().count(b"\n") == 2
    journal.close()


@given(st.lists(st.lists(st.dictionaries(st.text(), st.text() | st.just(True)))))
def test_any_records_are_read_as_they_were_written(
    tmp_path: Path, groups: list[list[dict[str, Any]]]
) -> None:
    path = tmp_path / "any"
    path.unlink(missing_ok=True)
    journal = Journal(path)
    records = [[{"more": False, **record, "op": 1} for record in group] for group in groups]
    for group in records:
        with journal.group():
            journal.append_logs(group)
    journal.close()
    found = read(path)
    assert [record["op"] for record in found] == [1] * sum(map(len, records))


def test_optunas_own_backend_reads_the_study(tmp_path: Path) -> None:
    make_study(tmp_path)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL)))
    study = optuna.load_study(study_name=None, storage=storage)
    mine = open_study(tmp_path)
    assert [trial.params for trial in study.trials] == [trial.params for trial in mine.trials()]
    assert [trial.state for trial in study.trials] == [trial.state for trial in mine.trials()]
    assert study.trials[0].intermediate_values == {1: 9.0, 2: 8.0}
    mine.close()


def test_a_study_cut_at_any_place_goes_on_or_says_that_it_cannot(tmp_path: Path) -> None:
    make_study(tmp_path)
    content = (tmp_path / JOURNAL).read_bytes()
    ends = group_ends(content)
    for length in sorted({*ends, *(end + 1 for end in ends[:-1]), *range(0, len(content), 97)}):
        (tmp_path / JOURNAL).write_bytes(content[:length])
        if length < ends[1]:
            with pytest.raises(ConfigError, match="holds no whole search"):
                open_study(tmp_path)
            continue
        study = open_study(tmp_path)
        study.interrupt()
        assert set(study.ask().params) == {"hidden_size", "lr", "clip_threshold", "sampling"}
        assert all(whole_trial(trial) for trial in study.trials())
        study.close()
        open_study(tmp_path).close()


def whole_trial(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial has all its parameters, and a row for each value that it reported."""
    reported = [row["epoch"] for row in rows_of(trial)]
    return len(trial.params) == 4 and reported == list(trial.intermediate_values)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A journal of seven records in four groups."""
    path = tmp_path / "journal"
    journal = Journal(path)
    for numbers in GROUPS:
        with journal.group():
            for number in numbers:
                journal.append_logs([{"n": number, "text": "a\nb"}])
    journal.close()
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a closed journal, without the mark of those that belong together."""
    journal = Journal(path)
    records = list(journal.read_logs(0))
    journal.close()
    return [{key: value for key, value in r.items() if key != "more"} for r in records]


def group_ends(content: bytes) -> list[int]:
    """The lengths at which a journal ends with a whole group, 0 first."""
    ends, length = [0], 0
    for line in content.splitlines(keepends=True):
        length += len(line)
        if "more" not in json.loads(line):
            ends.append(length)
    return ends


def make_study(folder: Path) -> None:
    """A study of one complete trial, one pruned and one that runs."""
    config = build_config({"train": {"max_epochs": 2}, "search": {"pruner": "nop"}})
    study = create_study(folder, config, {"corpus": "x"})
    for epochs in (2, 1, 0):
        number = study.ask().number
        rows = [{"epoch": epoch, "val_perplexity": 10.0 - epoch} for epoch in range(1, epochs + 1)]
        study.report(number, Report(rows=rows, done=epochs == 2, checkpoints={"best": epochs}))
    study.finish(1, optuna.trial.TrialState.PRUNED)
    study.close()
