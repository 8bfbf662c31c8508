"""Search hyperparameters of the classifier with Optuna (Akiba et al., 2019, arXiv:1907.10902)."""

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

from training.data.crops import CropDataModule
from training.errors import BadData
from training.lightning.classifier import ClassifierModule
from training.lightning.cli import TrainingCLI
from training.markdown import markdown_table

FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
RETRY_INTERVAL_S = 2
STORAGE_ATTEMPTS = 5
HEARTBEAT_INTERVAL_S = 30  # a trial whose process misses two heartbeats is retried by another


def sweep(
    trials: int = 24,
    space: Path = Path("training/configs/sweep.yaml"),
    runs: Path = Path("runs/sweep"),
    storage: str | None = None,
    arguments: tuple[str, ...] = (),
) -> None:
    """Train with hyperparameters that Optuna samples from a search space, and print a table of the trials.

    An interrupted sweep is resumed. Several processes, or machines that reach one storage, share the work: run the
    same command in each. A trial with a loss above the median of the others at the same epoch is pruned.

    Args:
        trials: number of trials, complete or pruned, of all processes together.
        space: search space and training command, as a sweep config of Weights & Biases.
        runs: folder for checkpoints and logs, one folder a trial, and for the storage.
        storage: URL of Optuna's storage; by default sweep.db in `runs`.
        arguments: more arguments of the training: `--arguments "[--data.folder, elsewhere]"`.

    Raises:
        BadData: `space` is not a sweep config, or the storage cannot be opened.
    """
    try:
        sweep = yaml.safe_load(space.read_text(encoding="utf-8"))
        command, parameters = sweep["command"], sweep["parameters"]
        metric, goal = sweep["metric"]["name"], sweep["metric"]["goal"]
    except (yaml.YAMLError, KeyError, TypeError):
        needed = "command, parameters, and metric with name and goal"
        raise BadData(f"{space}: not a sweep config: it needs {needed}, as training/configs/sweep.yaml has.") from None
    fixed = [part for part in command[3:] if part != "${args}"]  # without python -m training
    runs.mkdir(parents=True, exist_ok=True)

    def objective(trial: optuna.Trial) -> float:
        chosen = [f"--{name}={suggest(trial, name, parameter)}" for name, parameter in parameters.items()]
        places = [f"--trainer.default_root_dir={runs / f'trial-{trial.number}'}", "--trainer.logger=null"]
        pruning = PyTorchLightningPruningCallback(trial, metric)
        try:
            cli = TrainingCLI(ClassifierModule, CropDataModule, [*fixed, *chosen, *places, *arguments], [pruning])
        except BadData as error:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            sys.exit(str(error))  # not raised: Optuna would log a traceback
        loss = cli.trainer.callback_metrics[metric].item()
        if math.isnan(loss):
            raise optuna.TrialPruned("The loss is NaN.")
        return loss

    study = open_study(space.stem, storage or f"sqlite:///{runs / 'sweep.db'}", goal)

    def reached(states: tuple[optuna.trial.TrialState, ...]) -> bool:
        return len(study.get_trials(deepcopy=False, states=states)) >= trials

    while not reached(FINISHED):
        if reached((*FINISHED, optuna.trial.TrialState.RUNNING)):
            time.sleep(RETRY_INTERVAL_S)  # the last trials run in other processes; if one dies, retry its trial here
            optuna.storages.fail_stale_trials(study)
        else:
            study.optimize(objective, n_trials=1)
    print(trials_table(study))


def open_study(name: str, storage: str, goal: Literal["minimize", "maximize"]) -> optuna.Study:
    """Open a study, and create it if it does not exist.

    Raises:
        BadData: the storage cannot be opened.
    """
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats are experimental
    for attempt in range(1, STORAGE_ATTEMPTS + 1):
        try:
            return optuna.create_study(
                study_name=name,
                storage=optuna.storages.RDBStorage(
                    storage,
                    heartbeat_interval=HEARTBEAT_INTERVAL_S,
                    heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
                ),
                load_if_exists=True,
                direction=goal,
                pruner=optuna.pruners.MedianPruner(n_warmup_steps=1),
            )
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
            if attempt == STORAGE_ATTEMPTS:
                raise BadData(f"The storage of the sweep cannot be opened: {error}") from error
            time.sleep(RETRY_INTERVAL_S)  # another process may be creating the tables
    raise AssertionError("unreachable")


def suggest(trial: optuna.Trial, name: str, parameter: dict) -> str | float:
    """Sample a hyperparameter that is described as in a sweep config of Weights & Biases."""
    if "values" in parameter:
        return trial.suggest_categorical(name, parameter["values"])
    log = parameter["distribution"].startswith("log")
    return trial.suggest_float(name, parameter["min"], parameter["max"], log=log)


def trials_table(study: optuna.Study) -> str:
    """Return a Markdown table of the finished trials: complete ones, lowest loss first, then pruned ones."""

    def loss(trial: optuna.trial.FrozenTrial) -> float:
        return math.inf if trial.value is None else trial.value  # None: the last one was NaN

    trials = sorted(study.get_trials(states=FINISHED), key=lambda trial: (trial.state.value, loss(trial)))
    names = [name for trial in trials[:1] for name in trial.params]
    rows = [
        [
            str(trial.number),
            f"{loss(trial):.4f}" + (" (pruned)" if trial.state == optuna.trial.TrialState.PRUNED else ""),
            *(f"{value:.3g}" if isinstance(value, float) else value for value in trial.params.values()),
        ]
        for trial in trials
    ]
    return markdown_table(["Trial", "Loss", *(name.rpartition(".")[2].replace("_", " ") for name in names)], rows)
