"""The compiled kernel; see ``attention.c``."""

SIZES: int
TILE: int

def attend(
    query: int,
    cache: int,
    output: int,
    starts: int,
    lengths: int,
    table: int,
    sizes: tuple[int, int, int, int, int, int],
    strides: tuple[int, int, int, int, int],
    scale: float,
) -> None: ...
def usable() -> bool: ...
