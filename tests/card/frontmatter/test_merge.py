"""Keys added to front matter in every style: nothing that was there is lost or changed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchcard.card.frontmatter import yaml as yamltext
from benchcard.card.frontmatter.check import find_problems
from benchcard.card.frontmatter.merge import merge_fields
from benchcard.errors import CardError
from card.test_readme import is_subsequence

FIELDS = {"license": "mit", "pipeline_tag": "fill-mask", "tags": ["onnx", "a"], "datasets": ["glue"]}


def merged(yaml: str, fields: dict[str, object], overwrite: tuple[str, ...] = ()) -> str:
    """The front matter of a card after a merge."""
    text, _ = merge_fields(f"---\n{yaml}\n---\nbody", fields, overwrite=overwrite)
    assert text.endswith("\n---\nbody")
    assert merge_fields(text, fields, overwrite=overwrite)[0] == text
    return text.removeprefix("---\n").removesuffix("\n---\nbody")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("tags:\n- x", "tags:\n- x\n- onnx\n- a"),
        ("tags:\n  - x # c\n\n# next\nk: v", "tags:\n  - x # c\n  - onnx\n  - a\n\n# next\nk: v"),
        ("tags:\n- 'a'\n- x", "tags:\n- 'a'\n- x\n- onnx"),
        ("tags: [x, 'a']  # c", "tags: [x, 'a', onnx]  # c"),
        ("tags: [\n  x, # c\n]", "tags: [\n  x, onnx, a, # c\n]"),
        ("tags: [x,]", "tags: [x, onnx, a,]"),
        ("tags: []", "tags: [onnx, a]"),
        ("tags:\nk: v", "tags: [onnx, a]\nk: v"),
        ("tags: # c\nk: v", "tags: [onnx, a] # c\nk: v"),
        ("tags: ~ # c", "tags: [onnx, a] # c"),
        ("tags: x # c", "tags: [x, onnx, a] # c"),
        ("tags: 'x y'", "tags: ['x y', onnx, a]"),
        ("tags: a", "tags: [a, onnx]"),
        ("k: v", "k: v\ntags:\n- onnx\n- a"),
        ("  k: v", "  k: v\n  tags:\n  - onnx\n  - a"),
        ("k: v\n# end", "k: v\n# end\ntags:\n- onnx\n- a"),
        ("k: |\n  text", "k: |\n  text\ntags:\n- onnx\n- a"),
        ("k: |+\n  text\n", "k: |+\n  text\n\ntags:\n- onnx\n- a"),
        ("{k: v}", "{k: v, tags: [onnx, a]}"),
        ("{}", "{tags: [onnx, a]}"),
        ("{tags: [x], k: v}", "{tags: [x, onnx, a], k: v}"),
        ("# only words", "# only words\ntags:\n- onnx\n- a"),
        ("t: &t [x]\ntags:\n- q\n- w: *t", "t: &t [x]\ntags:\n- q\n- w: *t\n- onnx\n- a"),
        ("tags:\n- |\n  text\n- x\n\n", "tags:\n- |\n  text\n- x\n- onnx\n- a\n\n"),
        ("'tags' : [x]", "'tags' : [x, onnx, a]"),
        ("tags: {x: 1}", "tags: {x: 1}"),
        ("b: &b {tags: [x]}\n<<: *b", "b: &b {tags: [x]}\n<<: *b"),
        ("tags: >-\n  x", "tags: >-\n  x"),
    ],
)
def test_lists_grow_in_the_style_that_they_have(before, after):
    """New items stand beside the old ones, in their style; comments, quotes and other keys stay."""
    assert merged(before, {"tags": ["onnx", "a"]}) == after


def test_values_that_are_there_are_kept_and_told():
    """A value that differs is kept and its key told; equal ones are not."""
    text = "---\nlicense: 'apache-2.0' # mine\npipeline_tag: fill-mask\n---\n"
    assert merge_fields(text, {"license": "mit", "pipeline_tag": "fill-mask"}) == (text, ("license",))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("license: 'apache-2.0' # mine\nk: v", "license: mit # mine\nk: v"),
        ("license:\n- a\n- b\n# c\nk: v", "license: mit\n# c\nk: v"),
        ("license: >-\n  a\n  b\n\nk: v", "license: mit\n\nk: v"),
        ("license: [a,\n  b]\nk: v", "license: mit\nk: v"),
        ("license:\n  a: 1\n  b:\n  - c", "license: mit"),
        ("  license: a\n  k: v", "  license: mit\n  k: v"),
        ("{license: a, k: v}", "{license: mit, k: v}"),
    ],
)
def test_values_are_replaced_where_their_key_is_named(before, after):
    """A key that the caller names gets its new value in its place."""
    assert merged(before, {"license": "mit"}, ("license",)) == after


def test_a_replaced_value_may_be_a_list_or_a_mapping():
    """A value of any kind takes the place of another one."""
    assert merged("  a: 1\n  b:\n    c: 2", {"b": {"x": [1]}}, ("b",)) == "  a: 1\n  b:\n    x:\n    - 1"


def entry(source: str, value: float) -> dict[str, object]:
    """An entry of `model-index`."""
    result = {
        "task": {"type": "fill-mask"},
        "dataset": {"type": "glue", "name": "GLUE"},
        "metrics": [{"type": "accuracy", "value": value}],
    }
    return {"name": "m", "results": [{**result, "source": {"name": source, "url": "https://hf.co/x"}}]}


FOREIGN = """model-index:
- name: m   # theirs
  results:
  - task: {type: fill-mask}
    dataset: {type: glue, name: GLUE}
    metrics:
    - type: accuracy
      value: 0.90
      verified: true
      verifyToken: abc
k: v"""


def test_entries_of_others_in_model_index_stay_and_ours_are_renewed():
    """Our entry is added beside theirs; a newer one takes the place of the older one of the same run alone."""
    once = merged(FOREIGN, {"model-index": [entry("benchcard a", 0.5)]})
    twice = merged(once, {"model-index": [entry("benchcard b", 0.6)]})
    newer = merged(twice, {"model-index": [entry("benchcard a", 0.7)]})
    assert newer.startswith(FOREIGN.removesuffix("\nk: v"))
    assert newer.endswith("\nk: v")
    index = yamltext.load_yaml(newer)["model-index"]
    assert index[1:] == [entry("benchcard a", 0.7), entry("benchcard b", 0.6)]
    assert find_problems(f"---\n{newer}\n---\n") == []


def test_our_entry_is_renewed_in_flow_style_too():
    """An entry of ours within braces is renewed within them."""
    before = "model-index: [" + yamltext.format_flow(entry("benchcard a", 0.5)) + "]"
    after = merged(before, {"model-index": [entry("benchcard a", 0.7)]})
    assert after == before.replace("0.5", "0.7")


@pytest.mark.parametrize("text", ["# T\n", "", "\ufeff# T", "\n\n# T", "---\nwords"])
def test_a_readme_without_front_matter_gets_one(text):
    """Front matter is put before everything but a byte order mark, and the text stays."""
    after, kept = merge_fields(text, FIELDS)
    block = yamltext.split_card(after)
    assert yamltext.load_yaml(block.yaml) == FIELDS
    assert kept == ()
    assert block.body.lstrip("\n") == text.removeprefix("\ufeff").lstrip("\n")
    assert after.startswith("\ufeff") == text.startswith("\ufeff")
    assert merge_fields(after, FIELDS)[0] == after


def test_nothing_to_say_changes_nothing():
    """Without fields, or with empty ones, the text stays as it is."""
    assert merge_fields("# T", {"tags": [], "license": None}) == ("# T", ())


def test_line_ends_of_the_readme_are_kept():
    """What is added ends its lines as the README does."""
    text, _ = merge_fields("---\r\nk: v\r\ntags:\r\n- x\r\n---\r\n", FIELDS, newline="\r\n")
    assert text == (
        "---\r\nk: v\r\ntags:\r\n- x\r\n- onnx\r\n- a\r\nlicense: mit\r\npipeline_tag: fill-mask\r\n"
        "datasets:\r\n- glue\r\n---\r\n"
    )


@pytest.mark.parametrize("text", ["---\n---\nx", "---\n\n---\nx"])
def test_empty_front_matter_is_filled(text):
    """Dashes with nothing between them get the keys between them."""
    after, _ = merge_fields(text, {"license": "mit"})
    assert after == "---\nlicense: mit\n---\nx"


@pytest.mark.parametrize(
    "yaml", ["a: [", "- a", "words", "a: 1\na: 2", "a: !!python/tuple [1]", "{a: 1,}\n", "tags: &t [x]\nk: *t"]
)
def test_what_cannot_be_added_to_is_refused(yaml):
    """Front matter that is broken, or that cannot take an addition, is never written."""
    with pytest.raises(CardError, match="front matter"):
        merge_fields(f"---\n{yaml}\n---\n", {"tags": ["onnx"], "license": "mit"})


ENTRIES = {
    "license": ["license: apache-2.0", "license: 'mit'  # why", "license:", "license: mit"],
    "tags": [
        "tags: [x, 'y']",
        "tags:\n- x\n# c\n- y # d",
        "tags:\n    - x\n\n    - a",
        "tags: x",
        "tags: ~",
        "tags: []",
        "tags: [\n  x, # c\n  y\n]",
    ],
    "datasets": ["datasets: glue", "datasets:\n- squad\n- glue\n", "'datasets': [squad,]", "datasets: 'a, b'"],
    "widget": ["widget:\n- text: |\n    # lines\n\n    more\n  k: 1", "widget:\n  - src: >-\n      folded\n      text"],
    "version": [
        "version: 1.10",
        "inference: no",
        "date: 2022-01-01",
        "? q\n: w",
        "n: .nan",
        "long: a\n  b\n  c",
        'é: "\\u00e9"',
    ],
    "x": ["x: &x [1, 2]\nx2: *x", "x: &x {a: 1}\nx2:\n  <<: *x\n  b: 2", "x: {a: [b, {c: d}]}"],
}


@st.composite
def fronts(draw: st.DrawFn) -> str:
    """Front matter of keys in odd styles, in any order, with comments and empty lines between."""
    names = draw(st.permutations(sorted(ENTRIES)))
    chosen = [draw(st.sampled_from(ENTRIES[name])) for name in names[: draw(st.integers(0, len(names)))]]
    between = st.sampled_from(["", "", "# words", "\n", "\n  # words\n"])
    lines = [line for entry in chosen for line in (draw(between), entry)]
    return "\n".join(line for line in lines if line) + draw(st.sampled_from(["", "\n", "\n# end"]))


@settings(max_examples=100, deadline=None)
@given(fronts(), st.sampled_from(["\n", "\r\n"]))
def test_any_front_matter_keeps_all_that_it_says(yaml, newline):
    """Whatever the style, nothing that was there is missing, in text or in data, and a second merge changes nothing."""
    text = f"---\n{yaml}\n---\nbody".replace("\n", newline)
    old = yamltext.load_yaml(yamltext.split_card(text).yaml + "\n") or {}
    after, kept = merge_fields(text, FIELDS, newline=newline)
    block = yamltext.split_card(after)
    new = yamltext.load_yaml(block.yaml + "\n")
    assert is_subsequence(yamltext.split_card(text).yaml.replace("~", ""), block.yaml)
    assert block.body == "body"
    for key, value in old.items():
        if key not in FIELDS or key in kept:
            assert repr(new[key]) == repr(value)
    for key in ("tags", "datasets"):
        if key not in kept:
            was = old.get(key) or []
            assert new[key][: len(was)] == was if isinstance(was, list) else was in new[key] or was == new[key]
            assert set(FIELDS[key]) <= set(new[key]) or new[key] == FIELDS[key][0]
    assert merge_fields(after, FIELDS, newline=newline) == (after, kept)
