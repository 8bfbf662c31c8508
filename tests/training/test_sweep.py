"""A sweep of several processes, on one storage, some of which die: what is kept, and what is tried again."""

import sqlite3
from pathlib import Path
from threading import Barrier, Event, Thread
from types import SimpleNamespace

import optuna
import pytest
import torch

import training.sweep
from training.cli import main
from training.errors import BadData
from training.sweep import opened, suggest, sweep

SPACE = Path(__file__).parents[2] / "training/configs/sweep.yaml"
RATE = {"distribution": "log_uniform_values", "min": 0.0002, "max": 0.008}


@pytest.fixture
def train(monkeypatch):
    """Trainings of a moment: each ends with the next of the losses that the test names."""

    def use(*losses: float, work=lambda: None) -> None:
        left = iter(losses)

        def fit(*_):
            work()
            return SimpleNamespace(trainer=SimpleNamespace(callback_metrics={"val/loss": torch.tensor(next(left))}))

        monkeypatch.setattr(training.sweep, "CLI", fit)

    monkeypatch.setattr(training.sweep, "PATIENCE", 0.1)
    return use


def trials(runs: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="sweep", storage=f"sqlite:///{runs / 'sweep.db'}").trials


def test_a_finished_sweep_is_told_again_and_does_not_go_on(train, tmp_path, capsys):
    train(0.5, 0.4)
    sweep(2, SPACE, tmp_path)
    told = capsys.readouterr().out
    assert "| 1     | 0.4000 |" in told
    sweep(2, SPACE, tmp_path)
    assert capsys.readouterr().out == told
    assert len(trials(tmp_path)) == 2


def test_processes_do_not_pass_the_number_together(train, tmp_path):
    begun, may_end = Event(), Event()
    train(0.5, 0.4, work=lambda: (begun.set(), may_end.wait(30)))
    first = Thread(target=sweep, args=(1, SPACE, tmp_path))
    first.start()
    assert begun.wait(30)
    second = Thread(target=sweep, args=(1, SPACE, tmp_path))
    second.start()
    second.join(0.5)
    assert second.is_alive(), "it waits: the first one may die"
    may_end.set()
    for one in first, second:
        one.join(30)
    assert len(trials(tmp_path)) == 1


def test_a_loss_that_is_no_number_is_given_up(train, tmp_path, capsys):
    train(float("nan"), 0.5)
    sweep(2, SPACE, tmp_path)
    assert [line.split("|")[2].strip() for line in capsys.readouterr().out.splitlines()[2:]] == [
        "0.5000",
        "inf (given up)",
    ]


def test_what_a_dead_process_tried_is_tried_again(train, tmp_path):
    study = opened("sweep", f"sqlite:///{tmp_path / 'sweep.db'}", "minimize")
    dead = study.ask()
    rate = suggest(dead, "model.learning_rate", RATE)
    study._storage.record_heartbeat(dead._trial_id)
    with sqlite3.connect(tmp_path / "sweep.db") as storage:
        storage.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')")
    storage.close()
    train(0.5)
    sweep(1, SPACE, tmp_path)
    first, second = trials(tmp_path)
    assert (first.state.name, second.state.name) == ("FAIL", "COMPLETE")
    assert second.params["model.learning_rate"] == rate


def test_several_processes_can_begin_one_sweep_at_once(train, tmp_path):
    together, studies = Barrier(3), []

    def begin() -> None:
        together.wait()
        studies.append(opened("sweep", f"sqlite:///{tmp_path / 'sweep.db'}", "minimize"))

    threads = [Thread(target=begin) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(studies) == 3


def test_a_storage_that_cannot_be_had_is_told(train, tmp_path):
    with pytest.raises(SystemExit, match="cannot be kept in its storage"):
        main(["sweep", "--runs", str(tmp_path), "--storage", f"sqlite:///{tmp_path}/no folder/sweep.db"])


@pytest.mark.parametrize(
    "text", ["", "parameters: [", "command: [python]", "command: []\nparameters: {}\nmetric: loss"]
)
def test_a_space_that_is_no_sweep_is_told(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SystemExit, match=r"mine\.yaml: this is no sweep"):
        main(["sweep", "--space", str(tmp_path / "mine.yaml"), "--runs", str(tmp_path / "runs")])


def test_without_data_the_way_to_them_is_all_that_is_told(train, tmp_path, caplog):
    def missing():
        raise BadData("Fetch them.")

    train(0.5, work=missing)
    optuna.logging.enable_propagation()
    with pytest.raises(SystemExit, match="Fetch them"):
        sweep(1, SPACE, tmp_path)
    assert not [record for record in caplog.records if record.exc_info]
    assert [trial.state.name for trial in trials(tmp_path)] == ["FAIL"]
