"""The rules that every file of drmlib keeps, each a function from a parsed file to sentences that say what is wrong.

Rules read the syntax tree, so a file need not be imported, and a test can hand in a few lines to see a rule fail.
Layering has a file of its own, test_layering.py.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent.parent / "drmlib"
DEFENCES = ("training", "detection", "inversion", "mitigation")  # what a defender calls: it sees no poison mask
METHODS = ("attacks", *DEFENCES)  # one file a method
KERNELS = ("metrics", "models", *METHODS)  # tensors in, tensors out
# What methods are made of and measured by, none a method with a paper of its own name.
NO_METHODS = {
    f"{folder}/{name}"
    for folder, names in {
        "attacks": "targets selection per_image learned adversarial adversarial_checks measure visibility",
        "training": "isolation isolated_steps isolated_losses norm_modes abl_alternatives population",
        "detection": "by_group neighbours confusion_settings confusion_rounds confusion_steps class_test",
        "inversion": "trigger_families trigger_networks constancy drmguard_stages free_targets adaptive_cost "
        "lem_search feature_re_objective feature_re_search proximity mesa_networks staircase point_triggers",
        "mitigation": "clean_samples neurons image_loss",
    }.items()
    for name in names.split()
}

RETURNS = {"training": "History", "detection": "Tensor", "mitigation": "nn.Module"}  # inversion: a NamedTuple
# A training method that finds something out (ABL: which samples it isolated) returns it beside the fields of History,
# in a NamedTuple of its own: who reads a History can read this, and the evaluator judges what was found.
HISTORY = {"loss", "learning_rate", "seconds"}
DRAWS = (
    "rand randn randint randperm normal bernoulli multinomial poisson uniform_ normal_ random_ bernoulli_ exponential_ "
    "geometric_ cauchy_ log_normal_ trunc_normal_ kaiming_normal_ kaiming_uniform_ xavier_normal_ xavier_uniform_ "
    "orthogonal_"
).split()
GLOBAL_DRAWS = ("rand_like", "randn_like", "randint_like", "manual_seed", "seed", "rrelu", "dropout", "feature_dropout")
ORACLES = (
    "target target_class target_label targets_of_attack poison_rate attack_success_rate asr cover poison poisoned "
    "is_poisoned poison_mask cover_mask mask test_set test"
).split()


class File(NamedTuple):
    """One file: the folder it stands in ("" for drmlib itself), its name without .py, its syntax tree."""

    folder: str
    name: str
    tree: ast.Module

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}".lstrip("/")

    @property
    def is_method(self) -> bool:
        return (
            self.folder in METHODS
            and not self.name.startswith("_")
            and self.name != "__init__"
            and str(self) not in NO_METHODS
        )

    @property
    def is_kernel(self) -> bool:
        return self.folder in KERNELS or str(self) in KERNELS


def parse(folder: str, name: str, source: str) -> File:
    """A File from source text."""
    return File(folder, name, ast.parse(source))


def files() -> list[File]:
    """Every file of drmlib."""
    return [
        parse(path.parent.relative_to(PACKAGE).as_posix().removeprefix("."), path.stem, path.read_text())
        for path in sorted(PACKAGE.rglob("*.py"))
    ]


# Signatures


def generators_are_required_keywords(file: File) -> Iterator[str]:
    if str(file) == "rng" or file.folder == "lab":  # there generators are what the functions are about
        return
    for function in _functions(file, private=True):
        arguments = function.args
        positional = [a.arg for a in _positional(function)]
        if "generator" in positional and not function.name.startswith("_"):
            yield f"{function.name}: generator must be keyword-only"
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            if argument.arg == "generator" and default is not None:
                yield f"{function.name}: generator must be required, it has a default"
        for argument in _arguments(function):
            if argument.arg == "generator" and _text(argument.annotation) not in ("Generator", "torch.Generator"):
                yield f"{function.name}: generator is annotated {_text(argument.annotation)!r}, expected Generator"


def what_tunes_is_keyword_only(file: File) -> Iterator[str]:
    for function in _functions(file) if file.is_kernel or file.folder == "data" else []:
        count = len(function.args.defaults)
        for argument in _positional(function)[len(_positional(function)) - count :]:
            yield f"{function.name}: {argument.arg} has a default, so it tunes: put it after *"


def model_comes_first(file: File) -> Iterator[str]:
    for function in _functions(file) if file.folder != "lab" else []:
        names = [a.arg for a in _positional(function) if a.arg not in ("self", "cls")]
        everything = [a.arg for a in _arguments(function)]
        if "model" in everything and names[:1] != ["model"]:
            yield f"{function.name}: model must be the first argument, got {names}"
        data = [name for name in ("images", "dataset") if name in everything]
        if file.folder in METHODS and "model" not in everything and data and names[:1] != data[:1]:
            yield f"{function.name}: {data[0]} must be the first argument, got {names}"


def methods_have_the_shape_of_their_folder(file: File) -> Iterator[str]:
    if not file.is_method:
        return
    methods = [n for n in _public(file) if _plain(n.name) == _plain(file.name)]
    if not methods:
        yield f"expected a public function or class named as the file, {file.name}"
    for method in methods:
        if isinstance(method, ast.FunctionDef) and file.folder in DEFENCES:
            yield from _defence_shape(file, method)
        elif isinstance(method, ast.FunctionDef) and file.name == "poison":
            names = [a.arg for a in _positional(method)][:3]
            if names != ["dataset", "trigger", "retarget"] or _text(method.returns) != "Poisoned":
                returned = _text(method.returns)
                yield f"expected poison(dataset, trigger, retarget, ...) -> Poisoned, got {names} -> {returned}"


def _defence_shape(file: File, method: ast.FunctionDef) -> Iterator[str]:
    names = [a.arg for a in _positional(method)]
    without_data = file.folder == "mitigation" and names == ["model"]  # a repair that needs no sample: CLP
    if not without_data and (names[:1] != ["model"] or names[1:2] not in (["images"], ["dataset"])):
        yield f"{method.name}: expected (model, images or dataset, ...), got {names}"
    returned = _text(method.returns)
    if file.folder == "inversion":
        fields = _named_tuples(file).get(returned)
        if fields is None or not {"trigger", "score"} <= fields:
            yield f"{method.name}: expected a NamedTuple of this file with fields trigger and score, got {returned}"
    elif file.folder == "training" and HISTORY <= _named_tuples(file).get(returned, set()):
        return
    elif returned != RETURNS[file.folder]:
        yield f"{method.name}: expected to return {RETURNS[file.folder]}, got {returned}"


def triggers_map_images_to_images(file: File) -> Iterator[str]:
    if file.folder != "attacks":
        return
    for node in _public(file):
        for method in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(method, ast.FunctionDef) and method.name in ("__call__", "forward"):
                names = [a.arg for a in _arguments(method)]
                if "images" in names and (names != ["self", "images"] or _text(method.returns) != "Tensor"):
                    yield f"{node.name}: a trigger maps (images) -> Tensor, got {names[1:]} -> {_text(method.returns)}"


def defences_see_no_secret(file: File) -> Iterator[str]:
    if file.folder not in DEFENCES:
        return
    for function in _functions(file):
        for argument in _arguments(function):
            if argument.arg in ORACLES:
                yield f"{function.name}: {argument.arg} is what a defender does not know; name it oracle_{argument.arg}"
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Name) and node.id == "Poisoned" or _imports(node, "Poisoned"):
            yield "Poisoned carries the masks of the attacker; a defence takes a Dataset"


def no_string_selects_a_function(file: File) -> Iterator[str]:
    for function in _functions(file) if file.folder in METHODS else []:
        for argument in _arguments(function):
            if re.search(r"\bstr\b|\bLiteral\b", _text(argument.annotation)):
                yield f"{function.name}: {argument.arg} is a string; pass the function itself"


# Text


def everything_public_has_a_docstring(file: File) -> Iterator[str]:
    if not ast.get_docstring(file.tree):
        yield "the file has no docstring"
    for node in _public(file):
        if not ast.get_docstring(node):
            yield f"{node.name} has no docstring"


def methods_name_their_paper(file: File) -> Iterator[str]:
    if file.is_method and file.name not in ("poison", "fit"):
        if not re.search(r"\b(19|20)\d\d\b|\bbaseline\b", ast.get_docstring(file.tree) or ""):
            yield "the file's docstring names no paper (method, authors, year, title), nor is it a baseline"


def no_file_is_called_utils(file: File) -> Iterator[str]:
    if re.fullmatch(r"_*(utils?|helpers?|common|misc)", file.name):
        yield "name the file after what it holds"


# Kernels: tensors in, tensors out


def draws_take_a_generator(file: File) -> Iterator[str]:
    if str(file) == "rng":
        return
    for call in _calls(file):
        name, keywords = _called(call), {k.arg for k in call.keywords}
        if name in DRAWS and "generator" not in keywords:
            yield f"line {call.lineno}: {name} draws from the global stream; give it generator="
        if name in GLOBAL_DRAWS and not (name == "seed" and isinstance(call.func, ast.Name)):
            yield f"line {call.lineno}: {name} can only use the global stream"
    for node in ast.walk(file.tree):
        if _imports(node, "random") or _text(node) in ("np.random", "numpy.random", "torch.distributions"):
            yield f"line {node.lineno}: a second source of random numbers; draw with torch and a generator"


def devices_follow_the_inputs(file: File) -> Iterator[str]:
    if file.folder in ("lab", "plots"):
        return
    for call in _calls(file):
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("cuda", "cpu") and not call.args:
            yield f"line {call.lineno}: .{call.func.attr}() chooses a device; for NumPy use .numpy(force=True)"
        named = [k.value for k in call.keywords if k.arg == "device"] + (call.args[:1] if _called(call) == "to" else [])
        for value in named:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield f"line {call.lineno}: device {value.value!r} is fixed; take that of the inputs"


def kernels_have_no_side_effects(file: File) -> Iterator[str]:
    if file.folder in ("lab", "plots"):
        return
    for call in _calls(file):
        if _called(call) in ("print", "display", "input"):
            yield f"line {call.lineno}: {_called(call)} in a kernel; return the figure"
        if file.is_kernel and _called(call) in ("open", "write_text", "write_bytes", "mkdir", "savefig", "getenv"):
            yield f"line {call.lineno}: {_called(call)} in a kernel; files and the environment belong to data and lab"
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Global):
            yield f"line {node.lineno}: global state {', '.join(node.names)}"
        for name in ("argparse", "matplotlib", "logging", "subprocess"):
            if _imports(node, name):
                yield f"line {node.lineno}: {name} in a kernel"


def nothing_is_pickled(file: File) -> Iterator[str]:
    for node in ast.walk(file.tree):
        if any(_imports(node, name) for name in ("pickle", "dill", "cloudpickle", "joblib", "shelve")):
            yield f"line {node.lineno}: a pickle runs code when it is read; use safetensors and JSON"
        if _text(node) in ("torch.load", "torch.save", "torch.hub"):
            yield f"line {node.lineno}: {_text(node)} pickles; use safetensors"
    for call in _calls(file):
        if any(k.arg == "allow_pickle" and not _is(k.value, False) for k in call.keywords):
            yield f"line {call.lineno}: allow_pickle runs code from a file"


RULES = (
    generators_are_required_keywords,
    what_tunes_is_keyword_only,
    model_comes_first,
    methods_have_the_shape_of_their_folder,
    triggers_map_images_to_images,
    defences_see_no_secret,
    no_string_selects_a_function,
    everything_public_has_a_docstring,
    methods_name_their_paper,
    no_file_is_called_utils,
    draws_take_a_generator,
    devices_follow_the_inputs,
    kernels_have_no_side_effects,
    nothing_is_pickled,
)


# Reading a syntax tree


def classes_with(file: File, method: str, arguments: list[str]) -> list[str]:
    """Public classes of the file with this method and exactly these arguments, e.g. __call__ and self, images."""
    return [
        node.name
        for node in _public(file)
        if isinstance(node, ast.ClassDef) and "Protocol" not in map(_text, node.bases)
        for n in node.body
        if isinstance(n, ast.FunctionDef) and n.name == method and [a.arg for a in _arguments(n)] == arguments
    ]


def _public(file: File) -> list[ast.FunctionDef | ast.ClassDef]:
    nodes = [n for n in file.tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    return [n for n in nodes if not n.name.startswith("_")]


def _functions(file: File, *, private: bool = False) -> list[ast.FunctionDef]:
    """Functions of the file and constructors of its public classes; the generated ones of tuples do not count."""
    top = file.tree.body if private else _public(file)
    inside = [n for node in _public(file) if isinstance(node, ast.ClassDef) for n in node.body]
    constructors = [n for n in inside if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    return [n for n in top if isinstance(n, ast.FunctionDef)] + constructors


def _positional(function: ast.FunctionDef) -> list[ast.arg]:
    return [*function.args.posonlyargs, *function.args.args]


def _arguments(function: ast.FunctionDef) -> list[ast.arg]:
    return [*_positional(function), *function.args.kwonlyargs]


def _named_tuples(file: File) -> dict[str, set[str]]:
    """Name and fields of each NamedTuple of the file."""
    return {
        node.name: {n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
        for node in file.tree.body
        if isinstance(node, ast.ClassDef) and "NamedTuple" in [_text(base).split(".")[-1] for base in node.bases]
    }


def _calls(file: File) -> list[ast.Call]:
    return [n for n in ast.walk(file.tree) if isinstance(n, ast.Call)]


def _called(call: ast.Call) -> str:
    return _text(call.func).split(".")[-1] if isinstance(call.func, ast.Name | ast.Attribute) else ""


def _imports(node: ast.AST, name: str) -> bool:
    """Whether `node` imports the module, or the name, `name`."""
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[0] == name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] == name or any(alias.name == name for alias in node.names)
    return False


def _is(node: ast.AST, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _text(node: ast.AST | None) -> str:
    return ast.unparse(node).strip("'\"") if isinstance(node, ast.expr) else ""
