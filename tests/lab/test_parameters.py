"""The course map and the parameters of its notebooks: what is found, what is accepted, what is answered."""

import pytest

from drmlib.lab import course, parameters
from drmlib.lab.parameters import Parameter
from tests.lab import notebooks


@pytest.fixture
def lessons(tmp_path):
    notebooks.write(tmp_path / "00_start_here.ipynb", title="00 Start here")
    notebooks.write(tmp_path / "11_drmguard.ipynb", parameters=notebooks.PARAMETERS + "\nplot: bool = True  # draw")
    notebooks.write(tmp_path / "draft.ipynb")
    return course.discover(tmp_path)


def one(kind="str", choices=()):
    return Parameter("x", kind, "0", "", choices)


def test_discover_reads_numbers_titles_and_parts(lessons):
    assert [(n.number, n.name, n.title, n.part) for n in lessons] == [
        ("00", "00_start_here", "Start here", "Start here"),
        ("11", "11_drmguard", "A notebook", "Detection"),
    ]


def test_folder_comes_from_the_variable_then_from_here(tmp_path, monkeypatch):
    (tmp_path / "here" / "notebooks").mkdir(parents=True)
    (tmp_path / "named").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("DRMLIB_NOTEBOOKS", raising=False)
    assert course.folder() == tmp_path / "here" / "notebooks"
    monkeypatch.setenv("DRMLIB_NOTEBOOKS", str(tmp_path / "named"))
    assert course.folder() == tmp_path / "named"
    monkeypatch.setenv("DRMLIB_NOTEBOOKS", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match="set DRMLIB_NOTEBOOKS"):
        course.folder()
    with pytest.raises(FileNotFoundError, match="no notebooks"):
        course.discover(tmp_path / "named")


@pytest.mark.parametrize("name", ["11", "11_drmguard", "11_drmguard.ipynb"])
def test_find(lessons, name):
    assert [n.number for n in course.find([name], lessons)] == ["11"]
    assert [n.number for n in course.find(["0", name, "00"], lessons)] == ["00", "11"]
    assert course.find([], lessons) == lessons
    with pytest.raises(LookupError, match="unknown notebook '7'; valid: 00, 11"):
        course.find(["7"], lessons)


@pytest.mark.parametrize(
    ("number", "name"), [(0, "Start here"), (5, "Poisoning"), (6, "Detection"), (15, "Mitigation")]
)
def test_parts(number, name):
    assert course.part(number) == name


def test_parameters_are_read_with_type_default_meaning_and_choices(lessons):
    found = parameters.read(lessons[0].path)
    assert list(found) == ["profile", "dataset", "seed", "device", "rate"]
    assert found["profile"].choices == ("quick", "standard", "paper") and found["profile"].value == "quick"
    assert found["rate"] == Parameter("rate", "float", "0.1", "fraction of poisoned samples", ())


@pytest.mark.parametrize(
    ("comment", "choices"),
    [
        ("trigger; one of badnets, blend", ("badnets", "blend")),
        ("one of a, b or c.", ("a", "b", "c")),
        ("one of the papers says so (see below)", ()),
        ("the only one of its kind: 3", ()),
    ],
)
def test_choices_stand_at_the_end_of_the_comment(comment, choices):
    assert parameters._parameter("x", "str", "0", comment).choices == choices


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("false", "bool", False),
        ("yes", "bool", True),
        ("1", "float", 1.0),
        ("1e-3", "float", 1e-3),
        ("7", "int", 7),
        ("007", "str", "007"),
        ("[1, 2]", "list[int]", [1, 2]),
        ("[1, 1e-3]", "list[float]", [1.0, 1e-3]),
        ("3", "None", 3),
    ],
)
def test_values_are_yaml_of_the_stated_type(text, kind, value):
    converted = parameters.convert(text, one(kind))
    assert converted == value and type(converted) is type(value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("maybe", "bool"),
        ("1", "bool"),
        ("1.5", "int"),
        ("true", "int"),
        ("true", "float"),
        ("", "float"),
        ("x", "float"),
        ("[1, a]", "list[int]"),
        ("1", "list[int]"),
        ("[1", "list[int]"),
        ("{", "int"),
    ],
)
def test_values_of_another_type_are_refused(text, kind):
    with pytest.raises(ValueError, match="parameter x: expected " + kind.replace("[", r"\[")):
        parameters.convert(text, one(kind))


def test_a_table_stands_for_its_keys_and_each_element_of_a_list_is_checked(tmp_path):
    text = 'x: list[str] = ["grid"]  # attacks; each one of none, drmlib.lab.victims.PROFILES'
    path = notebooks.write(tmp_path / "00_a.ipynb", parameters=text)
    found = parameters.read(path)["x"]
    assert found.choices == ("none", "quick", "standard", "paper")
    assert parameters.convert("[quick, none]", found) == ["quick", "none"]
    with pytest.raises(ValueError, match="unknown x 'slow'; valid: none, quick"):
        parameters.convert("[quick, slow]", found)


def test_unknown_choice_lists_the_valid_ones():
    with pytest.raises(ValueError, match="unknown x 'blnd'; valid: badnets, blend"):
        parameters.convert("blnd", one(choices=("badnets", "blend")))


def test_resolve_gives_a_value_to_those_that_have_the_parameter(lessons):
    given = parameters.resolve(lessons, ["plot=no", "rate=0.5"])
    assert given == {"00_start_here": {"rate": 0.5}, "11_drmguard": {"plot": False, "rate": 0.5}}
    with pytest.raises(ValueError, match="unknown parameter 'rte'; valid: profile, .*, plot"):
        parameters.resolve(lessons, ["rte=1"])
    with pytest.raises(ValueError, match="unknown parameter 'plot'"):
        parameters.resolve(lessons[:1], ["plot=no"])
    with pytest.raises(ValueError, match="expected name=value, got 'plot'"):
        parameters.resolve(lessons, ["plot"])
