"""Models made up for tests: chat templates in the manner of well-known ones, and vocabularies to go with them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from streams.engine.tokenizer import HfTokenizer

CHATML = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if thinking %}<think>\n{% endif %}{% endif %}"
)

# As Qwen3's: tools in the system message, no thoughts of earlier replies, an empty one where there shall be none.
QWEN3 = """
{%- if tools %}
    {{- '<|im_start|>system\\n' + (messages[0].content + '\\n\\n' if messages[0].role == 'system' else '') }}
    {{- '# Tools\\n\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
    {{- '\\n</tools>\\n\\nCall with <tool_call>{"name": …, "arguments": …}</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if message.reasoning_content and loop.index0 > ns.last %}
            {{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- message.content }}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- (call.function.arguments | tojson) + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""


def byte_level(
    template: str | None = CHATML, added: Iterable[str] = ("<think>", "<tool_call>"), special: Iterable[str] = ()
) -> HfTokenizer:
    """A byte-level vocabulary with ChatML's special tokens, others, and added tokens that are not flagged special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>", *special])
    backend.add_tokens([AddedToken(surface, special=False) for surface in added])
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    fast.chat_template = template
    return HfTokenizer(fast)


def renamed(model: Path, to: Path, names: Mapping[str, str], template: str) -> Path:
    """A model some of whose tokens have other names, not flagged special, and which has another chat template.

    Args:
        model: directory of the model.
        to: empty directory for the new one; weights are linked.
        names: the new name of each token. An ordinary token becomes one that no text can spell.
        template: the new chat template.
    """
    for file in model.iterdir():
        if file.name not in ("tokenizer.json", "chat_template.jinja"):
            (to / file.name).symlink_to(file.resolve())
    state = json.loads((model / "tokenizer.json").read_text())
    vocabulary: dict[str, int] = state["model"]["vocab"]
    kept = [token for token in state["added_tokens"] if token["content"] not in names]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    made = [{"id": vocabulary[old], "content": new, **flags} for old, new in names.items()]
    state["added_tokens"] = sorted([*kept, *made], key=lambda token: int(token["id"]))
    state["model"]["vocab"] = {names.get(piece, piece): i for piece, i in vocabulary.items()}
    state["model"]["merges"] = [
        pair for pair in state["model"]["merges"] if names.keys().isdisjoint([*pair, "".join(pair)])
    ]
    (to / "tokenizer.json").write_text(json.dumps(state))
    (to / "chat_template.jinja").write_text(template)
    return to


def shallow(model: Path, to: Path, layers: int) -> Path:
    """The first layers of a model: as much work for whatever uses an engine, and little for the engine.

    Args:
        model: directory of the model.
        to: empty directory for the new one.
        layers: how many.
    """
    for file in model.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            (to / file.name).symlink_to(file.resolve())
    config = json.loads((model / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
    with safe_open(model / "model.safetensors", "pt") as weights:
        layer = re.compile(r"model\.layers\.(\d+)\.")
        kept = [name for name in weights.keys() if not (found := layer.match(name)) or int(found[1]) < layers]  # noqa: SIM118
        save_file({name: weights.get_tensor(name) for name in kept}, to / "model.safetensors")
    return to
