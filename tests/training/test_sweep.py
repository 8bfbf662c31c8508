"""Sweeps of several processes that share a storage, some of which die."""

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
from training.sweep import open_study, suggest, sweep

SPACE = Path(__file__).parents[2] / "training/configs/sweep.yaml"
RATE = {"distribution": "log_uniform_values", "min": 0.0002, "max": 0.008}


@pytest.fixture
def train(monkeypatch):
    """Return a function that replaces trainings by stubs, which end with the given losses, one after the other."""

    def stub(*losses: float, work=lambda: None) -> None:
        remaining = iter(losses)

        def fit(*_):
            work()
            return SimpleNamespace(
                trainer=SimpleNamespace(callback_metrics={"val/loss": torch.tensor(next(remaining))})
            )

        monkeypatch.setattr(training.sweep, "TrainingCLI", fit)

    monkeypatch.setattr(training.sweep, "RETRY_INTERVAL_S", 0.1)
    return stub


def trials(runs: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="sweep", storage=f"sqlite:///{runs / 'sweep.db'}").trials


def test_a_finished_sweep_only_prints_its_table_again(train, tmp_path, capsys):
    train(0.5, 0.4)
    sweep(2, SPACE, tmp_path)
    table = capsys.readouterr().out
    assert "| 1     | 0.4000 |" in table
    sweep(2, SPACE, tmp_path)
    assert capsys.readouterr().out == table
    assert len(trials(tmp_path)) == 2


def test_processes_together_do_not_exceed_the_number_of_trials(train, tmp_path):
    started, may_end = Event(), Event()
    train(0.5, 0.4, work=lambda: (started.set(), may_end.wait(30)))
    first = Thread(target=sweep, args=(1, SPACE, tmp_path))
    first.start()
    assert started.wait(30)
    second = Thread(target=sweep, args=(1, SPACE, tmp_path))
    second.start()
    second.join(0.5)
    assert second.is_alive(), "it waits, as the first one may die"
    may_end.set()
    for thread in first, second:
        thread.join(30)
    assert len(trials(tmp_path)) == 1


def test_a_trial_with_a_loss_of_nan_is_pruned(train, tmp_path, capsys):
    train(float("nan"), 0.5)
    sweep(2, SPACE, tmp_path)
    assert [line.split("|")[2].strip() for line in capsys.readouterr().out.splitlines()[2:]] == [
        "0.5000",
        "inf (pruned)",
    ]


def test_the_trial_of_a_dead_process_is_retried(train, tmp_path):
    study = open_study("sweep", f"sqlite:///{tmp_path / 'sweep.db'}", "minimize")
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


def test_several_processes_can_start_one_sweep_at_once(train, tmp_path):
    together, studies = Barrier(3), []

    def start() -> None:
        together.wait()
        studies.append(open_study("sweep", f"sqlite:///{tmp_path / 'sweep.db'}", "minimize"))

    threads = [Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(studies) == 3


def test_a_storage_that_cannot_be_opened_is_an_error(train, tmp_path):
    with pytest.raises(SystemExit, match="storage of the sweep cannot be opened"):
        main(["sweep", "--runs", str(tmp_path), "--storage", f"sqlite:///{tmp_path}/no folder/sweep.db"])


@pytest.mark.parametrize(
    "text", ["", "parameters: [", "command: [python]", "command: []\nparameters: {}\nmetric: loss"]
)
def test_a_file_that_is_not_a_sweep_config_is_an_error(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SystemExit, match=r"mine\.yaml: not a sweep config"):
        main(["sweep", "--space", str(tmp_path / "mine.yaml"), "--runs", str(tmp_path / "runs")])


def test_without_data_only_the_error_is_printed(train, tmp_path, caplog):
    def missing():
        raise BadData("Fetch them.")

    train(0.5, work=missing)
    optuna.logging.enable_propagation()
    with pytest.raises(SystemExit, match="Fetch them"):
        sweep(1, SPACE, tmp_path)
    assert not [record for record in caplog.records if record.exc_info]
    assert [trial.state.name for trial in trials(tmp_path)] == ["FAIL"]
