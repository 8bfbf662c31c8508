"""What the network learns from: one file a source, and `Hands`, which deals them out in batches."""

from pathlib import Path

import numpy as np
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Subset

from training.data.fingers import Fingers


class Hands(LightningDataModule):
    """Fingers in batches of ((N, 2, 128, 128) uint8, (N,) int64): train, validation, test.

    Validation is taken from the train split in whole groups of near duplicates: frames of one
    clip never lie on both sides.

    Args:
        folder: the data set, as `python -m training data` leaves it.
        batch_size: pictures a batch, on each device.
        workers: processes that read ahead. Batches come ready from a memory map, so none is needed.
        validation: share of the train split kept for validation.
    """

    # Said in every model made from these pictures.
    credit = "Fingers by Pavel Koryakin, kaggle.com/datasets/koryakinp/fingers (CC0)"

    def __init__(self, folder: str = "data/fingers", batch_size: int = 128, workers: int = 0, validation: float = 0.1):
        super().__init__()
        self.folder = Path(folder)
        self.batch_size, self.workers, self.validation = batch_size, workers, validation

    def prepare_data(self) -> None:
        # In one process only: decodes what is not decoded yet.
        for split in ("train", "test"):
            Fingers(self.folder, split)

    def setup(self, stage: str) -> None:
        pictures = Fingers(self.folder, "train")
        kept = split_groups(pictures.groups(), self.validation)
        self.train: Subset = Subset(pictures, np.flatnonzero(~kept).tolist())
        self.val: Subset = Subset(pictures, np.flatnonzero(kept).tolist())
        self.test = Fingers(self.folder, "test")

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.train, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.val)

    def test_dataloader(self) -> DataLoader:
        return self._loader(self.test)

    def _loader(self, pictures: Subset | Fingers, shuffle: bool = False) -> DataLoader:
        # The data set hands over whole batches: there is nothing to collate.
        return DataLoader(
            pictures,
            self.batch_size,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=lambda batch: batch,
            shuffle=shuffle,
            drop_last=shuffle,
        )


def split_groups(groups: np.ndarray, share: float) -> np.ndarray:
    """Choose whole groups until `share` of all members is reached: (N,) bool, the same every time.

    Groups larger than a tenth of what is wanted are not chosen: one of them would be most of it.
    """
    sizes = np.bincount(groups)
    order = np.random.default_rng(0).permutation(len(sizes))
    order = order[sizes[order] <= max(1, share * len(groups) / 10)]
    chosen = order[np.cumsum(sizes[order]) <= share * len(groups)]
    return np.isin(groups, chosen)
