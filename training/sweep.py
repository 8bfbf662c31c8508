"""Searches for good settings of the classifier's training, with Optuna (Akiba et al., 2019, arXiv:1907.10902)."""

from pathlib import Path

import optuna
import yaml
from optuna_integration import PyTorchLightningPruningCallback

from benchmarks import table
from training.classifier import Classifier
from training.cli import CLI
from training.data import Hands


def sweep(
    trials: int = 24,
    space: Path = Path("training/sweep.yaml"),
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
    """
    sweep = yaml.safe_load(space.read_text(encoding="utf-8"))
    fixed = [part for part in sweep["command"][3:] if part != "${args}"]  # without python -m training
    runs.mkdir(parents=True, exist_ok=True)

    def objective(trial: optuna.Trial) -> float:
        chosen = [f"--{name}={suggest(trial, name, one)}" for name, one in sweep["parameters"].items()]
        folder = runs / f"trial-{trial.number}"
        places = [f"--checkpoint.dirpath={folder}", "--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={folder}"]
        pruning = PyTorchLightningPruningCallback(trial, sweep["metric"]["name"])
        cli = CLI(Classifier, Hands, [*fixed, *chosen, *places, *arguments], [pruning])
        return cli.trainer.callback_metrics[sweep["metric"]["name"]].item()

    study = optuna.create_study(
        study_name=space.stem,
        storage=storage or f"sqlite:///{runs / 'sweep.db'}",
        load_if_exists=True,
        direction=sweep["metric"]["goal"],
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=1),
    )
    study.optimize(objective, callbacks=[optuna.study.MaxTrialsCallback(trials, states=DONE)])
    print(report(study))


DONE = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


def suggest(trial: optuna.Trial, name: str, one: dict) -> str | float:
    """A value of a parameter, as a sweep of Weights & Biases describes it."""
    if "values" in one:
        return trial.suggest_categorical(name, one["values"])
    log = one["distribution"].startswith("log")
    return trial.suggest_float(name, one["min"], one["max"], log=log)


def report(study: optuna.Study) -> str:
    """A table of the trials, the best first, those given up last."""
    trials = sorted(study.get_trials(states=DONE), key=lambda trial: (trial.state.value, trial.value))
    names = list(trials[0].params)
    rows = [
        [
            str(trial.number),
            f"{trial.value:.4f}" + (" (given up)" if trial.state.name == "PRUNED" else ""),
            *(f"{value:.3g}" if isinstance(value, float) else value for value in trial.params.values()),
        ]
        for trial in trials
    ]
    return table(["Trial", "Loss", *(name.rpartition(".")[2].replace("_", " ") for name in names)], rows)
