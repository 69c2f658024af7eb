"""The compiled kernel; see ``narrow.c``."""

OUTPUTS: int
INPUTS: int

def multiply(x: int, w: int, y: int, m: int, n: int, k: int, brain: bool) -> None: ...
def usable() -> bool: ...
