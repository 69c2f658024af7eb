"""How often a client may ask: a token bucket. Pure; the caller reads the clock."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Bucket:
    """A bucket that starts full.

    Attributes:
        rate: tokens that come in per second.
        burst: most that it holds.
        at: when it was last looked at, in seconds on the caller's clock.
    """

    rate: float
    burst: int
    at: float
    _tokens: float = field(init=False)

    def __post_init__(self) -> None:
        self._tokens = float(self.burst)

    def take(self, now: float) -> float:
        """Take a token. 0 if there was one, else nothing is taken, and after these many seconds there is one.

        Args:
            now: seconds on a clock that does not go back.
        """
        self._fill(now)
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.rate

    def full(self, now: float) -> bool:
        """Whether it is as a new one would be."""
        self._fill(now)
        return self._tokens >= self.burst

    def _fill(self, now: float) -> None:
        self._tokens = min(self.burst, self._tokens + (now - self.at) * self.rate)
        self.at = now
