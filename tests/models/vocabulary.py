"""The toys' vocabularies: each family's control tokens and chat template, over a tokenizer trained on the spot."""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 512

_CORPUS = [
    "The sensor reads 21.5 degrees; the pressure is steady at 1013 hPa and falling slowly.",
    "AAPL closed at 187.32, volume 52 million, up 1.4 percent. Is the trend rising or falling?",
    "Patient 12: heart rate 71, oxygen 98 percent, blood pressure 120 over 80. Answer yes or no.",
    "def mean(values): return sum(values) / len(values)  # of what was pushed so far",
    'Für Übergrößen gilt: naïve Annahmen, 温度, and {"json": [1, 2.5, null]} all occur in text.',
    "Temperature and humidity were measured at noon; the alarm threshold was exceeded twice this morning.",
    "Question: what changed since yesterday? Answer: nothing unusual, everything within normal limits.",
]

_LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_LLAMA4 = (
    _LLAMA3.replace("start_header_id", "header_start").replace("end_header_id", "header_end").replace("eot_id", "eot")
)
_MISTRAL = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ (system if loop.first else '') + m.content }}[/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
_GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set first = '' %}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ (first if loop.first else '') + m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_COHERE = (
    "{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|>"
    "<|{{ {'user': 'USER', 'assistant': 'CHATBOT', 'system': 'SYSTEM'}[m.role] }}_TOKEN|>{{ m.content }}"
    "<|END_OF_TURN_TOKEN|>{% endfor %}"
    "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Words:
    """A family's control tokens and chat template.

    Attributes:
        bos: begins every prompt; None where the family has no such token.
        eos: ends every reply.
        others: further control tokens.
        template: None for a base model.
    """

    bos: str | None
    eos: str
    others: tuple[str, ...] = ()
    template: str | None = None


LLAMA3_WORDS = Words("<|begin_of_text|>", "<|eot_id|>", ("<|start_header_id|>", "<|end_header_id|>"), _LLAMA3)
LLAMA4_WORDS = Words("<|begin_of_text|>", "<|eot|>", ("<|header_start|>", "<|header_end|>"), _LLAMA4)
MISTRAL_WORDS = Words("<s>", "</s>", ("[INST]", "[/INST]"), _MISTRAL)
GEMMA_WORDS = Words("<bos>", "<end_of_turn>", ("<start_of_turn>",), _GEMMA)
PHI3_WORDS = Words("<s>", "<|end|>", ("<|system|>", "<|user|>", "<|assistant|>"), _PHI3)
COHERE_WORDS = Words(
    "<BOS_TOKEN>",
    "<|END_OF_TURN_TOKEN|>",
    ("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>"),
    _COHERE,
)
BASE_WORDS = Words(None, "<|endoftext|>")


def tokenizer(words: Words) -> PreTrainedTokenizerFast:
    """A byte-level BPE vocabulary of exactly :data:`VOCABULARY` tokens, a family's control tokens first."""
    specials = [token for token in (words.bos, words.eos, *words.others) if token]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=1,
    )
    backend.train_from_iterator([*_CORPUS, readings(24)], trainer)
    assert backend.get_vocab_size() == VOCABULARY, "the corpus is too small for the vocabulary"
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=words.bos,
        eos_token=words.eos,
        additional_special_tokens=list(words.others),
    )
    fast.chat_template = words.template
    return fast


def readings(count: int, first: int = 0) -> str:
    """Lines of data, no two alike: about 13 tokens each."""
    hours = range(first, first + count)
    return "".join(f"At {hour:02}:00 the sensor reads {20 + hour * 7 % 13}.{hour % 10} degrees.\n" for hour in hours)
