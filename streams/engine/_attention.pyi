"""The compiled kernel; see ``attention.c``."""

SIZES: int
TILE: int

def attend(
    addresses: tuple[int, int, int, int, int, int],
    sizes: tuple[int, int, int, int, int, int],
    strides: tuple[int, int, int, int, int],
    scale: float,
) -> None: ...
def usable() -> bool: ...
