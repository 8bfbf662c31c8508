"""The kind of hands to render: what the command takes as options, every shard records, and the sampling does."""

from dataclasses import dataclass, field, fields


@dataclass(frozen=True)
class Kind:
    """Which hands a seed gives. By default: one generic hand, its fingers apart and upright, in any skin tone."""

    people: bool = field(default=False, metadata={"help": "each hand of another person instead of one generic hand"})
    tones: bool = field(
        default=False, metadata={"help": "each hand ten times, in the ten tones of the Monk scale, lightest first"}
    )
    varied: bool = field(default=False, metadata={"help": "fingers touch or are half bent, hands are turned further"})
    signs: bool = field(default=False, metadata={"help": "signs that people make: thumbs up and down, stop …"})

    @property
    def name(self) -> str:
        """Return the name of the folder for hands of this kind: that of its last option."""
        return next((name for name in reversed(FLAGS) if getattr(self, name)), "train")


FLAGS = tuple(flag.name for flag in fields(Kind))
GENERIC = Kind()
