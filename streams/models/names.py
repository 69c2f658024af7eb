"""What a person may name as a model, and which of several GGUF files a name means. Nothing here touches a disk."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from streams.errors import ModelError

PREFERRED = ("Q4_K_M", "Q5_K_M", "Q8_0", "Q6_K", "Q4_0", "F16", "BF16")
"""Which level is taken where a name leaves it open, best first: small, and still good."""

_SHOWN = 12
"""Levels or files that an error message lists."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_LEVEL = re.compile(r"[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*", re.ASCII)
_LEVEL_LENGTH = 32
_KNOWN_LEVEL = re.compile(
    r"(?:.*?[-._/])?((?:UD-)?(?:I?Q[1-8]|TQ[12]|(?:MX|NV)FP4)(?:_[0-9A-Z]+)*|B?F16|F32)", re.ASCII | re.IGNORECASE
)
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.ASCII)
# Vision projectors and the statistics that quantisers work from: GGUF files, but no models.
_NO_MODEL = re.compile(r"(?:.*[-._])?(?:mmproj|imatrix)(?:[-._].*)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Name:
    """A model's name as it was given.

    Attributes:
        base: a path, or ``org/name`` on the hub.
        level: of quantisation, as it appears in the names of GGUF files; None where the name leaves it open.
    """

    base: str
    level: str | None = None

    @property
    def on_hub(self) -> bool:
        """Whether the base can be a model on the hub."""
        return bool(_HUB_ID.fullmatch(self.base)) and not self.base.endswith(".gguf")

    @property
    def organisation(self) -> str | None:
        """Whose it is, where it is on the hub."""
        return self.base.partition("/")[0] if self.on_hub else None

    def __str__(self) -> str:
        return self.base if self.level is None else f"{self.base}:{self.level}"


def parse(text: str) -> Name:
    """Split ``base:LEVEL``. A text without a level is all base, whatever it is."""
    base, colon, level = text.rpartition(":")
    if colon and base and len(level) <= _LEVEL_LENGTH and _LEVEL.fullmatch(level):
        return Name(base, level)
    return Name(text)


@dataclass(frozen=True, slots=True)
class Weights:
    """One model among GGUF files.

    Attributes:
        stem: its path without the number of a part and without ``.gguf``.
        files: its files, or those of them that are there, in the order of their parts.
        count: how many files it has.
    """

    stem: str
    files: tuple[str, ...]
    count: int = 1

    @property
    def name(self) -> str:
        """What clients see where nothing else names the model."""
        return PurePosixPath(self.stem).name

    @property
    def level(self) -> str | None:
        """The level that its name ends in, or that its folder is named after, in capitals; None if neither tells."""
        path = PurePosixPath(self.stem)
        found = _KNOWN_LEVEL.fullmatch(_canonical(path.name)) or _KNOWN_LEVEL.fullmatch(_canonical(path.parent.name))
        return found and found[1]

    def is_of(self, level: str) -> bool:
        """Whether it is of this level, in whatever case either is written."""
        wanted, path = _canonical(level), PurePosixPath(self.stem)
        name = _canonical(path.name)
        return (
            name == wanted
            or (name.endswith(wanted) and name[-len(wanted) - 1] in "-._")
            or _canonical(path.parent.name) == wanted
        )

    def first(self, where: str) -> str:
        """The file from which all are read.

        Raises:
            ModelError: some parts are not there.
        """
        if len(self.files) < self.count:
            raise ModelError(
                f"{where} has {len(self.files)} of the {self.count} parts of {self.name}; get the others as well.",
                param="model",
            )
        return self.files[0]


def loadable(files: Collection[str]) -> bool:
    """Whether files are a model in Hugging Face format, as far as names tell."""
    return "config.json" in files and any("/" not in file and file.endswith(".safetensors") for file in files)


def among(files: Iterable[str]) -> list[Weights]:
    """The models among files, each once however many parts it has, sorted by name.

    Args:
        files: relative paths with ``/``; all but GGUF files of models are passed over.
    """
    parts: dict[tuple[str, int], dict[int, str]] = defaultdict(dict)
    for file in files:
        path = PurePosixPath(file)
        if path.suffix.lower() != ".gguf" or _NO_MODEL.fullmatch(path.stem):
            continue
        stem = str(path.with_suffix(""))
        part = _PART.fullmatch(stem)
        if part and 1 <= int(part["number"]) <= int(part["count"]):
            parts[part["stem"], int(part["count"])][int(part["number"])] = file
        else:
            parts[stem, 1][1] = file
    return sorted(
        (
            Weights(stem, tuple(file for _, file in sorted(found.items())), count)
            for (stem, count), found in parts.items()
        ),
        key=lambda weights: (len(weights.stem), weights.stem, weights.count),
    )


def level_of(file: str) -> str | None:
    """The level of a GGUF file, if its name tells."""
    return next((weights.level for weights in among([file])), None)


def choose(files: Iterable[str], level: str | None, where: str) -> Weights:
    """The model that is meant: of this level, or where that is open of the best-liked one.

    Args:
        files: see :func:`among`.
        level: as in :class:`Name`.
        where: whose files they are, for messages.

    Raises:
        ModelError: there is none, or none of this level.
    """
    models = among(files)
    if not models:
        raise ModelError(f"{where} has no GGUF file of a model; name another model.", param="model")
    if level is not None:
        of_level = [weights for weights in models if weights.is_of(level)]
        if not of_level:
            raise ModelError(
                f"{where} has no GGUF file of level {level}; name one of those it has: {_listed(models)}.",
                param="model",
            )
        return of_level[0]
    for preferred in PREFERRED:
        for weights in models:
            if weights.is_of(preferred):
                return weights
    return models[0]


def _listed(models: Sequence[Weights]) -> str:
    shown = sorted({weights.level or weights.name for weights in models})
    rest = len(shown) - _SHOWN
    return ", ".join(shown[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _canonical(text: str) -> str:
    return text.upper().replace("FP16", "F16").replace("FP32", "F32")
