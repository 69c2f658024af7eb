"""``python -m bench.renderings``: tokens per entry of several ways to write typed entries, by tokenizer.

Counts with the default model's tokenizer and with two that vLLM's dependencies bring. More may be given as files: a
``tokenizer.json``, or a tiktoken vocabulary of Llama 3 (``tokenizer.model``).
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from streams.entries import BUILTIN
from streams.entries.rendering import number

Entry = dict[str, Any]
Count = Callable[[str], int]

ENTRIES = 200
WORDS = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"} | {
    "spd": "speed",
    "hdg": "heading",
    "sev": "severity",
    "cnt": "count",
}
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)


def text(value: float | str) -> str:
    return value if isinstance(value, str) else number(value)


def as_json(entry: Entry) -> str:
    short = {key: value if isinstance(value, str) else json.loads(number(value)) for key, value in entry.items()}
    return json.dumps(short, separators=(",", ":"))


def joined(between: str, *, words: bool = False, separator: str = " ") -> Callable[[Entry], str]:
    """A label and a value for each field."""
    return lambda entry: separator.join(
        f"{WORDS.get(key, key) if words else key}{between}{text(value)}" for key, value in entry.items()
    )


def positional(entry: Entry) -> str:
    return ",".join(map(text, entry.values()))


COMMON: dict[str, Callable[[Entry], str]] = {
    "JSON": as_json,
    "key=value": joined("="),
    "word value": joined(" ", words=True),
    "positional": positional,
}
SPECIAL: dict[str, dict[str, Callable[[Entry], str]]] = {
    "ohlcv": {"wordvalue": joined("", words=True)},
    "iot": {"sid=value loN hiN": lambda e: f"{e['sid']}={text(e['val'])} lo{text(e['lo'])} hi{text(e['hi'])}"},
    "spatial": {"wordvalue": joined("", words=True)},
    "event": {"src wordvalue": lambda e: f"{e['src']} severity{e['sev']} {e['cat']} count{e['cnt']}"},
    "vitals": {"sat for spo2": lambda e: f"hr {e['hr']} bp {e['bp_s']}/{e['bp_d']} sat {e['spo2']} temp {e['temp']}"},
}


def streams() -> dict[str, list[Entry]]:
    """Plausible entries of every type, the same in every run."""
    rng = random.Random(4)
    made: dict[str, list[Entry]] = {name: [] for name in BUILTIN}
    price = 185.5
    for _ in range(ENTRIES):
        opened, price = price, round(price + rng.gauss(0, 0.3), 2)
        high, low = max(opened, price) + abs(rng.gauss(0, 0.2)), min(opened, price) - abs(rng.gauss(0, 0.2))
        made["ohlcv"].append(
            {"o": opened, "h": round(high, 2), "l": round(low, 2), "c": price, "v": rng.randint(1_000, 90_000)}
        )
        sensor = rng.choice(("temp-01", "temp-02", "pump_7", "humidity/hall"))
        made["iot"].append({"sid": sensor, "val": round(rng.gauss(72, 6), 1), "lo": 60, "hi": 85})
        place = {axis: round(rng.gauss(0, 50), 2) for axis in "xyz"}
        speed, heading = round(abs(rng.gauss(8, 3)), 1), round(rng.uniform(0, 360), 1)
        made["spatial"].append({**place, "spd": speed, "hdg": heading})
        source = rng.choice(("fw-01", "auth.service", "10.0.3.17", "edge/proxy"))
        category = rng.choice(("login_failed", "port_scan", "disk", "timeout"))
        made["event"].append({"src": source, "sev": rng.randint(1, 5), "cat": category, "cnt": rng.randint(1, 40)})
        pressure = {"bp_s": rng.randint(100, 150), "bp_d": rng.randint(60, 95)}
        oxygen, temperature = round(rng.uniform(88, 100), 1), round(rng.uniform(36, 39), 1)
        made["vitals"].append({"hr": rng.randint(55, 110), **pressure, "spo2": oxygen, "temp": temperature})
    return made


def tokenizers(model: str, paths: list[Path]) -> dict[str, Count]:
    """How many tokens a text has, by tokenizer."""
    import sentencepiece
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer
    from transformers import AutoTokenizer

    ours = AutoTokenizer.from_pretrained(model)
    data = files("mistral_common") / "data"
    tekken = Tekkenizer.from_file(str(data / "tekken_240911.json"))
    mistral = sentencepiece.SentencePieceProcessor(model_file=str(data / "tokenizer.model.v1"))
    counts: dict[str, Count] = {
        "default model": lambda text: len(ours.encode(text, add_special_tokens=False)),
        "Tekken": lambda text: len(tekken.encode(text, bos=False, eos=False)),
        "Mistral 7B": lambda text: len(mistral.encode(text)),
    }
    return counts | {path.parent.name: _from_file(path) for path in paths}


def _from_file(path: Path) -> Count:
    if path.suffix == ".json":
        from tokenizers import Tokenizer

        loaded = Tokenizer.from_file(str(path))
        return lambda text: len(loaded.encode(text, add_special_tokens=False).ids)
    from tiktoken import Encoding
    from tiktoken.load import load_tiktoken_bpe

    encoding = Encoding(path.name, pat_str=_LLAMA_3, mergeable_ranks=load_tiktoken_bpe(str(path)), special_tokens={})
    return lambda text: len(encoding.encode(text))


def reading(model: str, rounds: int) -> Table:
    """How likely the default model finds the right value in the last of six candles, by rendering."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    renderings = COMMON | SPECIAL["ohlcv"]
    found = dict.fromkeys(renderings, 0.0)
    candles = streams()["ohlcv"]
    for start in range(rounds):
        asked = candles[start * 7 % ENTRIES :][:6]
        field = "ohlcv"[start % 5]
        for label, render in renderings.items():
            question = f"These are candles, oldest first. What is the {WORDS[field]} of the last candle?"
            content = "\n".join((*map(render, asked), "", question))
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
            given = tokenizer.encode(f"{prompt}The {WORDS[field]} of the last candle is ", add_special_tokens=False)
            wanted = tokenizer.encode(text(asked[-1][field]), add_special_tokens=False)
            with torch.no_grad():
                logits = network(torch.tensor([given + wanted])).logits[0, len(given) - 1 : -1]
            found[label] += logits.log_softmax(-1)[range(len(wanted)), wanted].sum().item() / rounds
    table = Table("rendering", "mean log-probability", title=f"the right value of the last candle, {rounds} questions")
    for label, value in found.items():
        table.add_row(label, f"{value:.2f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.renderings", description=__doc__)
    parser.add_argument("tokenizers", nargs="*", type=Path, help="files of further tokenizers")
    default = os.environ.get("ASKAHEAD_TEST_MODEL")
    parser.add_argument("--model", default=default, required=default is None, help="directory of the default model")
    parser.add_argument("--read", type=int, metavar="N", help="ask the default model N questions about candles as well")
    arguments = parser.parse_args()
    counts = tokenizers(arguments.model, arguments.tokenizers)
    for name, entries in streams().items():
        kind = BUILTIN[name]
        chosen = {"chosen": lambda entry, kind=kind: kind.line(kind.parse(entry, "entry"))}
        table = Table("rendering", *counts, "example", title=f"{name}: tokens per entry")
        for label, render in (COMMON | SPECIAL[name] | chosen).items():
            lines = [render(entry) for entry in entries]
            stream = "".join(f"{line}\n" for line in lines)
            table.add_row(label, *(f"{count(stream) / len(lines):.1f}" for count in counts.values()), lines[0])
        Console(width=160).print(table)
    if arguments.read:
        Console(width=160).print(reading(arguments.model, arguments.read))


if __name__ == "__main__":
    main()
