from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from streams.errors import ModelError
from streams.models.names import PREFERRED, Name, among, choose, loadable, parse

LEVELS = ["Q4_K_M", "Q5_K_M", "Q8_0", "Q6_K", "Q4_0", "Q2_K", "IQ2_XXS", "F16", "BF16", "F32", "TQ1_0", "UD-Q4_K_XL"]

word = st.text("abcxyzABCXYZ019", min_size=1, max_size=6)
levels = st.sampled_from(LEVELS)
separators = st.sampled_from("-._")
repos = st.builds("{}/{}".format, word, word)


@st.composite
def file_names(draw: st.DrawFn, stem: str, level: str) -> list[str]:
    """Of one model of this level, in one file or in parts, in a folder or not, in whatever case."""
    stem += draw(separators) + draw(st.sampled_from([level, level.lower()]))
    folder = draw(st.sampled_from(["", f"{level}/", "gguf/"]))
    count = draw(st.integers(1, 4))
    if count == 1:
        return [f"{folder}{stem}.gguf"]
    return [f"{folder}{stem}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


class TestParse:
    @given(base=st.one_of(repos, word, st.text(min_size=1)), level=levels)
    def test_level_is_what_follows_the_last_colon(self, base: str, level: str) -> None:
        assert parse(f"{base}:{level}") == Name(base, level)

    @given(text=st.text())
    def test_nothing_is_lost(self, text: str) -> None:
        name = parse(text)
        assert str(name) == text
        assert name.level is None or ":" not in name.level

    @given(repo=repos, level=st.none() | levels)
    def test_name_on_the_hub(self, repo: str, level: str | None) -> None:
        assert parse(str(Name(repo, level))).on_hub

    @pytest.mark.parametrize(
        "text", ["org", "a/b/c", "/a/b", "./a", "a/b.gguf", "org/..", "org/name@v1", "org/nä", "org/a b", "", "a/b:"]
    )
    def test_no_name_on_the_hub(self, text: str) -> None:
        assert not parse(text).on_hub

    @pytest.mark.parametrize("text", ["a:", ":a", "a:b c", "a:b/c", "a:../b", "a:" + "x" * 33, "a:-b"])
    def test_no_level(self, text: str) -> None:
        assert parse(text) == Name(text)


class TestChoose:
    @given(data=st.data(), there=st.lists(levels, min_size=1, unique=True))
    def test_level_picks_all_its_parts_in_order(self, data: st.DataObject, there: list[str]) -> None:
        files = {level: data.draw(file_names("model", level)) for level in there}
        wanted = data.draw(st.sampled_from(there))
        shuffled = data.draw(st.permutations([name for names in files.values() for name in names]))
        asked = data.draw(st.sampled_from([wanted, wanted.lower()]))
        chosen = choose(shuffled, asked, "here")
        assert list(chosen.files) == files[wanted]
        assert chosen.level == wanted
        assert chosen.first("here") == files[wanted][0]

    @given(data=st.data(), there=st.lists(levels, min_size=1, unique=True))
    def test_without_a_level_the_best_liked_is_taken(self, data: st.DataObject, there: list[str]) -> None:
        files = [name for level in there for name in data.draw(file_names("model", level))]
        best = next((level for level in PREFERRED if level in there), None)
        chosen = choose(data.draw(st.permutations(files)), None, "here")
        assert chosen.level in ([best] if best else there)

    @given(data=st.data(), there=st.lists(levels, min_size=1, max_size=6, unique=True), wanted=levels)
    def test_level_that_is_not_there_is_refused_with_those_that_are(
        self, data: st.DataObject, there: list[str], wanted: str
    ) -> None:
        assume(wanted not in there)
        files = [name for level in there for name in data.draw(file_names("model", level))]
        with pytest.raises(ModelError) as caught:
            choose(files, wanted, "org/name")
        assert caught.value.message.startswith(f"org/name has no GGUF file of level {wanted}")
        assert all(level in caught.value.message for level in there)

    @given(data=st.data(), level=levels)
    def test_lost_part_is_told(self, data: st.DataObject, level: str) -> None:
        files = data.draw(file_names("model", level).filter(lambda names: len(names) > 1))
        files.remove(data.draw(st.sampled_from(files)))
        with pytest.raises(ModelError, match=rf"org/name has {len(files)} of the {len(files) + 1} parts of model"):
            choose(files, level, "org/name").first("org/name")

    @pytest.mark.parametrize(
        ("level", "file"),
        [
            ("Q4_K_M", "m-Q4_K_M.gguf"),
            ("UD-Q4_K_M", "m-UD-Q4_K_M.gguf"),
            ("F16", "m.fp16.gguf"),
            ("fp16", "m.fp16.gguf"),
            ("BF16", "m-BF16.gguf"),
            ("imat", "m-Q4_K_M-imat.gguf"),
            ("Q8_0", "Q8_0/weights.gguf"),
        ],
    )
    def test_level_is_a_whole_word(self, level: str, file: str) -> None:
        files = [
            "m-Q4_K_M-imat.gguf", "m-UD-Q4_K_M.gguf", "m-BF16.gguf", "m-Q4_K_M.gguf", "m.fp16.gguf",
            "Q8_0/weights.gguf", "mmproj-F16.gguf", "m.imatrix.gguf",
        ]  # fmt: skip
        assert choose(files, level, "here").files == (file,)

    def test_what_is_no_model_is_passed_over(self) -> None:
        assert among(["mmproj-F16.gguf", "m-mmproj-F16.gguf", "imatrix.gguf", "README.md", "config.json"]) == []
        with pytest.raises(ModelError, match="no GGUF file of a model"):
            choose(["mmproj-F16.gguf"], None, "org/name")

    def test_long_list_is_cut(self) -> None:
        with pytest.raises(ModelError, match=r"model-19 and 28 more\.$"):
            choose([f"model-{number}.gguf" for number in range(40)], "Q8_0", "org/name")


def test_safetensors_beside_a_config_can_be_loaded() -> None:
    assert loadable(["config.json", "model-00001-of-00002.safetensors", "model-Q8_0.gguf"])
    assert not loadable(["config.json", "original/model.safetensors"])
    assert not loadable(["model.safetensors"])
