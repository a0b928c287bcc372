"""Wall time that a test moves."""


class WallClock:
    """A clock in ns that stands still until it is told."""

    def __init__(self) -> None:
        self.now_ns = 1_795_376_000_000_000_000

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ns += round(seconds * 1e9)
