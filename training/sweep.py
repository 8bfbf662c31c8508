"""Searches for good settings of the classifier's training, with Optuna (Akiba et al., 2019, arXiv:1907.10902)."""

import math
import sys
import time
import warnings
from pathlib import Path
from typing import Literal

import optuna
import yaml
from optuna_integration import PyTorchLightningPruningCallback
from sqlalchemy.exc import SQLAlchemyError

from training.data import CropDataModule
from training.errors import BadData
from training.lightning.classifier import ClassifierModule
from training.lightning.cli import CLI
from training.markdown import markdown_table


def sweep(
    trials: int = 24,
    space: Path = Path("training/configs/sweep.yaml"),
    runs: Path = Path("runs/sweep"),
    storage: str | None = None,
    arguments: tuple[str, ...] = (),
) -> None:
    """Train with settings from the space, each better guessed than the one before, and print what came of it.

    A sweep that was stopped goes on. Several processes, or machines that reach one storage, share the work: start
    the same command in each. A trial that is worse than most were at its epoch is given up.

    Args:
        trials: how many, finished or given up, all processes together.
        space: the settings and the training that they are tried in, as a sweep of Weights & Biases.
        runs: folder for checkpoints and logs, a folder a trial, and for the storage.
        storage: address of Optuna's storage; sweep.db in `runs` if none is given.
        arguments: more for the training: `--arguments "[--data.folder, elsewhere]"`.

    Raises:
        BadData: `space` is no sweep, or the storage cannot be had.
    """
    try:
        sweep = yaml.safe_load(space.read_text(encoding="utf-8"))
        command, parameters = sweep["command"], sweep["parameters"]
        metric, goal = sweep["metric"]["name"], sweep["metric"]["goal"]
    except (yaml.YAMLError, KeyError, TypeError):
        needed = "command, parameters, and metric with name and goal"
        raise BadData(f"{space}: this is no sweep, which has {needed}: see training/configs/sweep.yaml.") from None
    fixed = [part for part in command[3:] if part != "${args}"]  # without python -m training
    runs.mkdir(parents=True, exist_ok=True)

    def objective(trial: optuna.Trial) -> float:
        chosen = [f"--{name}={suggest(trial, name, one)}" for name, one in parameters.items()]
        folder = runs / f"trial-{trial.number}"
        places = [f"--checkpoint.dirpath={folder}", "--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={folder}"]
        pruning = PyTorchLightningPruningCallback(trial, metric)
        try:
            cli = CLI(ClassifierModule, CropDataModule, [*fixed, *chosen, *places, *arguments], [pruning])
        except BadData as error:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            sys.exit(str(error))  # in these words alone: Optuna would log where it was raised
        loss = cli.trainer.callback_metrics[metric].item()
        if math.isnan(loss):
            raise optuna.TrialPruned("The loss is no number.")
        return loss

    study = opened(space.stem, storage or f"sqlite:///{runs / 'sweep.db'}", goal)

    def enough(states: tuple[optuna.trial.TrialState, ...]) -> bool:
        return len(study.get_trials(deepcopy=False, states=states)) >= trials

    while not enough(DONE):
        if enough((*DONE, optuna.trial.TrialState.RUNNING)):
            time.sleep(PATIENCE)  # others are at the last ones: if their process dies, this one takes them up
            optuna.storages.fail_stale_trials(study)
        else:
            study.optimize(objective, n_trials=1)
    print(report(study))


DONE = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
PATIENCE = 2  # seconds
BEAT = 30  # seconds between signs of life of a trial: after two without, another process takes it up


def opened(name: str, storage: str, goal: Literal["minimize", "maximize"]) -> optuna.Study:
    """The study of that name, made where there is none.

    Raises:
        BadData: it cannot be had there.
    """
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of signs of life, and what comes of them
    attempts = 5
    while True:
        attempts -= 1
        try:
            return optuna.create_study(
                study_name=name,
                storage=optuna.storages.RDBStorage(
                    storage,
                    heartbeat_interval=BEAT,
                    heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
                ),
                load_if_exists=True,
                direction=goal,
                pruner=optuna.pruners.MedianPruner(n_warmup_steps=1),
            )
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
            if not attempts:
                raise BadData(f"The sweep cannot be kept in its storage: {error}") from error
            time.sleep(PATIENCE)  # another process may just be making the tables


def suggest(trial: optuna.Trial, name: str, one: dict) -> str | float:
    """A value of a parameter, as a sweep of Weights & Biases describes it."""
    if "values" in one:
        return trial.suggest_categorical(name, one["values"])
    log = one["distribution"].startswith("log")
    return trial.suggest_float(name, one["min"], one["max"], log=log)


def report(study: optuna.Study) -> str:
    """A table of the trials, the best first, those given up last."""

    def loss(trial: optuna.trial.FrozenTrial) -> float:
        return math.inf if trial.value is None else trial.value  # the last one was no number

    trials = sorted(study.get_trials(states=DONE), key=lambda trial: (trial.state.value, loss(trial)))
    names = [name for trial in trials[:1] for name in trial.params]
    rows = [
        [
            str(trial.number),
            f"{loss(trial):.4f}" + (" (given up)" if trial.state.name == "PRUNED" else ""),
            *(f"{value:.3g}" if isinstance(value, float) else value for value in trial.params.values()),
        ]
        for trial in trials
    ]
    return markdown_table(["Trial", "Loss", *(name.rpartition(".")[2].replace("_", " ") for name in names)], rows)
