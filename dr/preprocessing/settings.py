"""The settings of data.py, checked when they are built."""

from dataclasses import dataclass

from dr import POLICIES, UsageError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the preprocessed images and their split. Raises UsageError.

    `size`: longest side of a preprocessed image in pixels. `per_class`: a number, "all", or None for the default of the
    source. `conflicts`: one of POLICIES. `stereo`: split frames with two retinas.
    """

    size: int = 512
    per_class: int | str | None = None
    val_fraction: float = 0.2
    seed: int = 10
    conflicts: str = "drop"
    crop: bool = True
    stereo: bool = False

    def __post_init__(self):
        if not 16 <= self.size <= 4096:
            raise UsageError(f"--size must lie between 16 and 4096 pixels, got {self.size}")
        if self.per_class not in (None, "all") and (isinstance(self.per_class, str) or self.per_class < 1):
            raise UsageError(f"--per_class must be at least 1 or 'all', got {self.per_class}")
        if not 0 < self.val_fraction < 1:
            raise UsageError(f"--val_fraction must lie between 0 and 1, got {self.val_fraction}")
        if self.conflicts not in POLICIES:
            raise UsageError(f"--conflicts must be one of {', '.join(POLICIES)}, got {self.conflicts}")

    @property
    def limit(self) -> int | None:
        """Maximum number of training images of each class, None for no limit."""
        return None if self.per_class == "all" else self.per_class
