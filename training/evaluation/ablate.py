"""Ablate the cascade: what each of its stages and sizes brings, and what it costs."""

from dataclasses import replace
from pathlib import Path

from handful import MODEL
from training.evaluation.calibrate import load_runner
from training.export.export import stored_config
from training.markdown import markdown_table

# Fields of the config that are changed for each row, from the cascade as it is.
VARIANTS: dict[str, dict[str, float]] = {
    "as exported": {},
    "without flip TTA": {"flip_confidence": 0.0},
    "frames of 124 pixels": {"detector_scale": 0.775},
    "frames of 192 pixels": {"detector_scale": 1.2},
    "crops of 96 pixels": {"crop_scale": 0.8572},
    "crops of 112 pixels": {"crop_scale": 1.0},
    "crops of 128 pixels": {"crop_scale": 1.143},
}


def ablate(model: Path = MODEL, folder: Path = Path("data"), frames: int = 300) -> None:
    """Print how the exported model does on the calibration split without each stage of its cascade.

    Args:
        model: the ONNX file.
        folder: the data sets, as `python -m training data` fetches them.
        frames: frames of each source at most, evenly spread.

    Raises:
        BadData, BadModel: the file is damaged, or no source of the calibration split is there.
    """
    runner, config = load_runner(model, model, folder, frames), stored_config(model)
    rows = []
    for name, changes in VARIANTS.items():
        if name == "as exported" or replace(config, **changes) != config:
            result = runner.run(replace(config, **changes))
            cells = [result.accuracy, *result.by_source.values()]
            rows.append([name, *(f"{share:.1%}" for share in cells), f"{result.cost:.2f}"])
    print(markdown_table(["Frames correct", "mean", *runner.sources, "passes"], rows))
