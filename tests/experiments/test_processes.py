"""Work side by side: whose claim a folder is, what a process is given, what ends when one of them breaks."""

from __future__ import annotations

import subprocess
import sys
from threading import Event

import pytest

from latentwire.experiments.processes import claimed, environment, reason, run_all


def test_a_folder_is_claimed_by_one_at_a_time_and_outlives_the_sweep_that_claimed_it(tmp_path):
    folder = tmp_path / "run"
    with claimed(folder) as first, claimed(folder) as second:
        assert first is not None and second is None
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(first,))
    with claimed(folder) as other:
        assert other is None, "the process that inherited the claim still has it"
    child.communicate(b"\n")
    with claimed(folder) as other:
        assert other is not None


def test_a_process_gets_one_gpu_or_its_share_of_the_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert environment("3", 4)["CUDA_VISIBLE_DEVICES"] == "3" and environment("3", 4)["OMP_NUM_THREADS"] == "8"
    assert environment(None, 3)["OMP_NUM_THREADS"] == "2" and environment(None, 20)["OMP_NUM_THREADS"] == "1"
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert environment(None, 2)["OMP_NUM_THREADS"] == "3"


def test_what_breaks_ends_the_others_and_begins_nothing_new():
    begun, stopped = [], Event()

    def one(item, place):
        begun.append(item)
        if item == "bad":
            raise RuntimeError("no")
        assert stopped.wait(10), "nobody ended what was running"

    with pytest.raises(RuntimeError, match="no"):
        run_all(["long", "bad", "never", "never"], 2, (), one, lambda item, found: None, stop=stopped.set)
    assert begun[:2] == ["long", "bad"] and begun.count("never") <= 1


def test_what_is_over_is_told_in_this_thread_with_what_it_found():
    found = {}
    run_all([1, 2, 3], 2, ("a", "b"), lambda item, place: (item * 2, place), found.__setitem__)
    assert {key: value[0] for key, value in found.items()} == {1: 2, 2: 4, 3: 6}
    assert {value[1] for value in found.values()} <= {"a", "b"}


def test_a_reason_names_no_path_of_a_machine(tmp_path):
    log = tmp_path / "log.txt"
    assert reason(log, 3) == "exit code 3"
    log.write_text("step 1/2\nOSError: there is no /some/where/file.bin\n")
    assert reason(log, 1) == "OSError: there is no …"
