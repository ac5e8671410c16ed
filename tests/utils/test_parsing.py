"""Untrusted text and data: each gives a result or an error of ours, in time linear in its size."""

from __future__ import annotations

import datetime
import json
import random
import sys
import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchcard import Benchmark
from benchcard.card.frontmatter import yaml
from benchcard.card.reading.classic import read_card
from benchcard.card.readme import merge
from benchcard.errors import BenchcardError, CardError, SpecError
from benchcard.hub.overwrite import read_manifest
from benchcard.spec import spec as specs
from benchcard.spec.plan import make_plan
from benchcard.utils.parsing import UnreadableError, front_matter, load_json, load_yaml
from benchcard.utils.plain import MAX_LEVELS, checked

SPEC = """\
task: text-classification
model: a/b
dataset: {path: c/d, eval_split: test, data_keys: {primary: text}, ref_keys: [label], calibration_split: train}
metrics: [accuracy, f1]
task_args: {label_mapping: {a: 0, b: 1}, metric_args: {f1: {average: macro}}}
duration: 1.5
batch_sizes: [1, 8]
backend_args: {x: y}
fixed: {node_exclusion: [], calibration: {method: minmax}}
grid:
  per_channel: [false, true]
  quantization_approach: [dynamic, static]
  framework_args: [{opset: 17}, {}]
"""
CLASSIC = """\
**task**: `t`
**Backend:** `local`
**Backend args:** `{}`
**Number of evaluation samples:** `All dataset`

Fixed parameters:

Benchmarked parameters:
* **a**: `1`

## Non-time metrics
| a   |     | accuracy |
| --- | --- | -------- |
| `1` | \\|  | 0.5      |
"""
CARD = "---\ntags: [a]\nmetrics: [b]\n---\n\n# T\n"

# Values in YAML that once ended in an error of Python's or the library's, or might.
VALUES = [
    *("!!bool foo", '!!int ""', "!!int foo", "!!float x", "!!null x", "!!binary aGk=", "!!binary '='", "!!set {a, b}"),
    *(
        "!!omap [a: 1]",
        "!!pairs [a: 1]",
        "!!timestamp foo",
        "!!timestamp 2024-13-45",
        "!!python/tuple [1]",
        "!!str [a]",
    ),
    *(
        "!!python/object/apply:os.system [ls]",
        "!!map foo",
        "!!seq {a: b}",
        "!x y",
        "!<tag:yaml.org,2002:int> z",
        "!! x",
    ),
    *(
        "2024-01-01",
        "2024-13-45",
        "0000-00-00",
        "2024-01-01T99:99:99",
        "12:30:99",
        ".nan",
        "-.inf",
        "1e999",
        "0x",
        "1_0",
    ),
    *("9" * 400, "9" * 5000, "0o9", "=", "<<", "~", '"\\ud800"', '"\\0"', '"\\x"', "\x00", "\ufeff", "\u2028", "é"),
    *("[[]]", "{}", "[1, {a: [2]}]", "{1: a, '1': b}", "{null: a}", "{[a]: b}", "{{a: b}: c}", "{1.5: a, true: b}"),
    *("{2024-01-01: a}", "{.nan: a}", "&a [*a]", "&a {b: *a}", "*nobody", "{<<: {a: b}}", "{<<: [1]}", "{a: 1, a: 2}"),
    *("&a 1", "&a [&a 1, *a]", "|\n  text", ">-\n  text", "'", '"', "[", "{", "}", "#", "@", "`", "%", "- a", "? a"),
    *(
        "[1]",
        "[{a: 1}]",
        "[null]",
        "{a: 2024-01-01}",
        "{a: .nan}",
        "{a: '\\ud800'}",
        '{a: "\\udc80"}',
        "{a: !!binary aa}",
    ),
    *(
        "true",
        "yes",
        "''",
        "-1",
        "0",
        "1e400",
        "[accuracy, [f1]]",
        "[[accuracy]]",
        "../x",
        "a/b",
        "~nobody/x",
        "a" * 300,
    ),
]
LINES = [
    "---",
    "...",
    "%YAML 1.1",
    "%YAML 9.9",
    "%TAG ! x",
    "# only words",
    "\t",
    "",
    "a: b",
    "- x",
    "x",
    "\ufeff",
    "task:",
]


def outcome(action: Callable[[], Any]) -> str:
    """Return `result`, or the name of the error of ours that an action raises. Other errors and warnings are raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            action()
        except BenchcardError as error:
            str(error).encode()
            return type(error).__name__
    return "result"


def hostile_yaml(generator: random.Random) -> str:
    """Return the spec with one to three changes: a value put somewhere, a line added, characters removed or doubled."""
    text = SPEC
    for _ in range(generator.randint(1, 3)):
        kind = generator.randint(0, 3)
        place = generator.randrange(len(text) + 1)
        if kind == 0:
            words = [index for index, char in enumerate(text) if char in ":,[{"] or [0]
            start = generator.choice(words) + 1
            end = min([index for index in (text.find(char, start) for char in ",]}\n") if index >= 0] or [start])
            text = f"{text[:start]} {generator.choice(VALUES)}{text[end:]}"
        elif kind == 1:
            lines = text.split("\n")
            lines.insert(generator.randrange(len(lines) + 1), generator.choice(LINES))
            text = "\n".join(lines)
        elif kind == 2:
            text = text[:place] + text[place + generator.randint(1, 9) :]
        else:
            text = text[:place] + generator.choice(VALUES) + text[place:]
    return text


def spec_of(text: str, path: Path) -> None:
    """Read a spec from a file, compute its digest, and plan it."""
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    spec = specs.load_spec(path)
    assert specs.read_spec(json.loads(json.dumps(spec.as_dict()))) == spec
    assert len(spec.digest) == 64
    make_plan(spec)


def front_of(text: str) -> None:
    """Merge a card into a README with this front matter."""
    readme = f"---\n{text}\n---\n\nwords\n"
    merge(readme, CARD, "beans")


def test_generated_specs_end_in_a_spec_or_in_our_errors(tmp_path):
    """Each of hundreds of generated specs, as YAML files and as front matter, gives a result or an error of ours."""
    generator = random.Random(15)
    ends = []
    for _ in range(300):
        text = hostile_yaml(generator)
        for action in (lambda text=text: spec_of(text, tmp_path / "spec.yaml"), lambda text=text: front_of(text)):
            try:
                ends.append(outcome(action))
            except Exception as error:
                raise AssertionError(text) from error
    assert {"result", "SpecError", "CardError"} <= set(ends)


@pytest.mark.parametrize("value", VALUES)
def test_each_hostile_value_in_each_open_place(value, tmp_path):
    """Each hostile value gives a result or an error of ours, wherever a spec allows any value, and in front matter."""
    for template in (
        "{}",
        "task: {}",
        f"{SPEC}\nhigher_is_better: {{}}",
        SPEC.replace("label_mapping: {a: 0, b: 1}", "label_mapping: {}"),
        SPEC.replace("{average: macro}", "{}"),
        SPEC.replace("metrics: [accuracy, f1]", "metrics: {}"),
        SPEC.replace("{opset: 17}", "{}"),
        SPEC.replace("{x: y}", "{x: {}}"),
    ):
        text = template.replace("{}", value, 1)
        outcome(lambda text=text: spec_of(text, tmp_path / "spec.yaml"))
        outcome(lambda text=text: front_of(text))


BOMB = "\n".join(["a0: &a0 [1]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))])
MERGES = "\n".join(
    ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 30))]
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "[" * 2000 + "]" * 2000, "levels deep"),
        ("a: " + "[" * 150 + "]" * 150, "levels deep"),
        ("a: " + "{a: " * 2000 + "}" * 2000, "levels deep"),
        ("\n".join(" " * n + "a:" for n in range(2000)), "levels deep"),
        ("- " * 2000 + "a", "levels deep"),
        (BOMB, "aliases repeat"),
        (MERGES, "aliases repeat"),
        ("a: &a\n- *a", "alias `\\*a` refers to itself"),
        ("a: &a {b: {c: *a}}", "alias `\\*a` refers to itself"),
        ("a: &a {<<: *a}", "alias `\\*a` refers to itself"),
        ("a: !!bool foo", "does not fit its tag"),
        ("a: !!set {b}", "tag !!set is unknown"),
        ("a: !!python/name:os.system", "tag !!python/name:os.system is unknown"),
        ("a: 1\na: 2", 'the key "a" is there twice: keep one of them'),
        ("--- a\n--- b", "single document"),
        ("a: \x00", "not allowed"),
        ("a: " + "9" * 5000, "does not fit its tag"),
    ],
)
def test_what_yaml_may_not_hold(text, said, tmp_path):
    """Each text is refused as a spec and as front matter, with a message and its place."""
    (tmp_path / "spec.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=said):
        specs.load_spec(tmp_path / "spec.yaml")
    if not text.startswith("---"):
        for action in (lambda: front_of(text), lambda: read_card(f"---\n{text}\n---\n\n{CLASSIC}")):
            with pytest.raises(CardError, match=said):
                action()
    with pytest.raises(UnreadableError, match=said):
        load_yaml(text)


def test_what_yaml_may_hold(tmp_path):
    """A byte order mark, other line ends, anchors used again, and dates are read without warnings."""
    assert load_yaml("\ufeffa: 1\r\nb: 2024-01-01\r\n") == {"a": 1, "b": "2024-01-01"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_yaml("a: &x 1\nb: &x 2\nc: *x\nd: {<<: &y {e: 1}}\n") == {"a": 1, "b": 2, "c": 2, "d": {"e": 1}}
        assert yaml.compose_yaml("a: &x 1\nb: &x 2\n") is not None
    assert load_yaml("# only words\n") is None
    with pytest.raises(UnreadableError, match="levels deep"):
        load_yaml("[" * 100_000)
    assert load_yaml("[" * (MAX_LEVELS - 1) + "]" * (MAX_LEVELS - 1))
    path = tmp_path / "spec.yaml"
    path.write_bytes("\ufeff".encode() + SPEC.replace("\n", "\r\n").encode())
    assert specs.load_spec(path).digest == specs.read_spec(load_yaml(SPEC)).digest
    path.write_bytes(b"task: \xff")
    with pytest.raises(SpecError, match="byte 6 is no UTF-8"):
        specs.load_spec(path)
    with pytest.raises(SpecError, match="the path of a file"):
        Benchmark.from_spec("a\0b")


def cyclic() -> dict[str, Any]:
    """Return a mapping that contains itself in a list."""
    value: dict[str, Any] = {}
    value["a"] = [value]
    return value


def mapped_on_itself() -> dict[str, Any]:
    """Return a mapping that is its own value."""
    value: dict[str, Any] = {}
    value["a"] = value
    return value


def deep(levels: int) -> Any:
    """Return lists within lists."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def bomb() -> Any:
    """Return a list that is small in memory and huge to copy."""
    value: Any = [1]
    for _ in range(30):
        value = [value] * 9
    return value


OBJECTS: list[tuple[Any, str]] = [
    (datetime.date(2024, 1, 1), "put it in quotes"),
    (datetime.datetime(2024, 1, 1), "put it in quotes"),
    (np.datetime64("2024-01-01"), "put it in quotes"),
    (b"bytes", "found b'bytes'"),
    (float("nan"), "a finite number"),
    (np.float32("inf"), "a finite number"),
    (10**400, "an integer of 64 bits"),
    (10**5000, "an integer of 64 bits"),
    ("\ud800", "text that UTF-8 can encode"),
    (Decimal(1), "found Decimal"),
    (object(), "found <object"),
    (np.zeros(3), "found array"),
    (1j, "found 1j"),
    (cyclic(), "does not contain itself"),
    (mapped_on_itself(), "does not contain itself"),
    (deep(200), "at most 100 levels"),
    (deep(5000), "at most 100 levels"),
    ({1: "a", "1": "b"}, "each key once"),
    ({b"a": 1}, "text as keys"),
    ({(1, 2): 1}, "text as keys"),
    ({float("nan"): 1}, "text as keys"),
    ({"\udc80": 1}, "text as keys"),
]


@pytest.mark.parametrize(("value", "said"), OBJECTS, ids=range(len(OBJECTS)))
def test_what_a_spec_in_python_may_not_hold(value, said):
    """A value that is not plain is a mistake with its place, wherever a spec allows any value."""
    for inside in (
        {"label_mapping": {"a": value}},
        {"metric_args": {"accuracy": {"a": [value]}}},
        value,
    ):
        spec = {**load_yaml(SPEC), "task_args": inside}
        with pytest.raises(SpecError, match=said) as caught:
            Benchmark(**spec)
        assert all(
            mistake.place.startswith("$.task_args") or said.endswith("values") for mistake in caught.value.mistakes
        )
        str(caught.value).encode()
    for name in ("task", "model", "dataset", "metrics", "grid", "fixed", "framework_args", "backend_args", "duration"):
        with pytest.raises(SpecError):
            Benchmark(**{**load_yaml(SPEC), name: value})
        with pytest.raises(SpecError):
            Benchmark.from_spec({**load_yaml(SPEC), name: {name: value}})
        with pytest.raises(SpecError):
            Benchmark.from_spec({**load_yaml(SPEC), name: [value]})


def test_a_list_that_is_endless_to_copy_is_refused():
    """Lists that contain each other many times are small in memory, and have too many values for a spec."""
    with pytest.raises(SpecError, match="at most 200000 values, found more"):
        Benchmark(**{**load_yaml(SPEC), "task_args": bomb()})


def test_numbers_of_numpy_are_what_they_stand_for():
    """NumPy scalars and arrays without dimensions become numbers, in keys and values; sets become sorted lists."""
    given = {np.int64(3): np.float32(0.5), "a": np.array(2), "b": {3, 1, 2}, "c": (Path("x"),)}
    assert checked(given) == ({"3": 0.5, "a": 2, "b": [1, 2, 3], "c": ["x"]}, [])
    assert checked({True: 1, None: 2}) == ({"true": 1, "null": 2}, [])
    assert checked({"a": {3, "x", None, 2.5}})[0] == {"a": [None, 2.5, 3, "x"]}


def test_metrics_that_are_no_texts(beans):
    """Numbers, lists and mappings among the metrics are mistakes, each with its place."""
    for metrics in ([1], [{"a": 1}], [["accuracy"]], [None], {"accuracy": 1}, ["accuracy", {"f1": {}}]):
        beans["metrics"] = metrics
        beans["task_args"] = {"metric_args": {"f2": {}}}
        with pytest.raises(SpecError) as caught:
            specs.read_spec(beans)
        assert any(mistake.place.startswith("$.metrics") for mistake in caught.value.mistakes)


def test_mistakes_beyond_number_are_not_all_listed():
    """A file with thousands of mistakes gives the first hundred."""
    with pytest.raises(SpecError) as caught:
        specs.read_spec({f"wrong{index}": index for index in range(3000)})
    assert len(caught.value.mistakes) == specs.MOST_MISTAKES


def calls(action: Callable[[], Any]) -> int:
    """Return the number of functions, of Python and of C, that an action calls."""
    count = 0

    def hook(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(hook)
    try:
        outcome(action)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    "many",
    [
        lambda n: "a: [" + "1, " * n + "]",
        lambda n: "a: {" + ", ".join(f"k{i}: 1" for i in range(n)) + "}",
        lambda n: "a: '" + "x " * n + "'",
        lambda n: "a: |\n" + "  x\n" * n,
        lambda n: "a: &a [1]\nb: [" + "*a, " * n + "]",
        lambda n: "\n".join(f"a{i}: &a{i} [1]" for i in range(n)),
        lambda n: "batch_sizes: [" + ", ".join(map(str, range(1, n))) + "]",
        lambda n: "# x\n" * n,
        lambda n: "\n".join(f"k{i}: 1" for i in range(n)),
    ],
    ids=range(9),
)
def test_reading_takes_time_linear_in_the_size(many, tmp_path):
    """Four times as much text costs about four times as many calls, not sixteen."""
    actions = (lambda text: lambda: spec_of(text, tmp_path / "spec.yaml"), lambda text: lambda: front_of(text))
    for action in actions:
        outcome(action("a: 1"))  # imports
        few, more = calls(action(many(60))), calls(action(many(240)))
        assert more < 6 * few


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "levels deep"),
        ("NaN", "not finite"),
        ("1e400", "not finite"),
        ("18446744073709551616", "64 bits"),
        ("{'a': 1}", "property name"),
        ("9" * 5000, "limit"),
        ("", "value"),
    ],
)
def test_json_that_is_none(text, said):
    """Invalid JSON, and what Python's reader accepts or fails on, raise one kind of error."""
    with pytest.raises(UnreadableError, match=said):
        load_json(text)
    with pytest.raises(UnreadableError):
        load_json(b"\xff")


def test_a_large_float_of_json_is_one():
    """The mask of a causal model adds about -3.4e38, which is finite: a difference of it is read back as it was."""
    assert load_json('{"max_abs_difference": 3.4e38, "other": -1e300}') == {
        "max_abs_difference": 3.4e38,
        "other": -1e300,
    }


def test_a_manifest_on_the_hub_that_is_none_claims_nothing():
    """A manifest that is invalid, or nested too deep, claims no files as ours."""
    for manifest in (b"[" * 100_000, b'{"files": {"a": 1}}', b'{"files": [1]}', b"\xff", b'"x"', b"NaN", None):
        assert read_manifest(manifest) == {}


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "0o" + "7" * 5000, "9" * 5000])
def test_a_number_of_yaml_can_be_written(number):
    """Integers with more digits than Python writes are refused in any notation; others are read."""
    with pytest.raises(UnreadableError, match=r"bits|digits"):
        load_yaml(f"tags: [{number}]")
    assert load_yaml("0x" + "f" * 20) == 16**20 - 1


def test_bytes_of_json_are_utf8():
    """Lone surrogates are refused in any encoding."""
    for text in (b'["\xed\xa0\x80"]', '["\\ud800"]'.encode("utf-16-le")):
        with pytest.raises(UnreadableError):
            load_json(text)


@pytest.mark.parametrize(
    "readme",
    [
        "---\nlicense: mit\n---\nwords",
        "---\r\nlicense: mit\r\n---",
        "\n \n---\nlicense: mit\n--- \t\n---\nno: more\n---\n",
        "---\nlicense: mit\n----\n---\n",
        "words\n---\nlicense: mit\n---\n",
        "\ufeff---\nlicense: mit\n---\n",
        "---\nlicense: mit\n--- x",
        "---",
        "",
    ],
)
def test_front_matter_of_a_folder_is_what_the_client_of_the_hub_finds(readme, tmp_path):
    """Data sets are read by that client, so a text that it takes for none has none here."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    (tmp_path / "README.md").write_bytes(readme.encode())
    block = REGEX_YAML_BLOCK.search(readme)
    try:
        expected = load_yaml(block.group(2)) if block else {}
    except UnreadableError:
        expected = {}
    assert front_matter(tmp_path) == expected
