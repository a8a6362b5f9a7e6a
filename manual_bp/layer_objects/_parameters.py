"""Where a layer keeps its parameters and, after a backward pass, their gradients: found by names and shapes."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice, product
from typing import Any

import numpy as np

from manual_bp.adapters import Adapter
from manual_bp.errors import ManualBPError
from manual_bp.layer_objects._paths import BOXES, boxed, read

#: torch's parameter -> paths whose arrays follow one another along torch's first axis; none: the layer has no such.
Wiring = dict[str, tuple[str, ...]]

WORDS: Mapping[str, tuple[str, ...]] = {
    "weight": (
        "weight", "weights", "W", "w", "kernel", "kernels", "filters", "filter", "K", "gamma", "scale", "scaler",
        "theta", "Theta", "embedding", "embeddings", "table", "g", "weight_matrix", "_weights", "_W",
    ),
    "bias": (
        "bias", "biases", "b", "B", "beta", "shift", "w0", "b0", "intercept", "bias_vector", "_biases", "_bias", "_b",
    ),
    "running_mean": ("running_mean", "moving_mean", "mean_running", "run_mean", "r_mean", "cache_m", "running_mu"),
    "running_var": ("running_var", "moving_var", "moving_variance", "run_var", "r_var", "cache_v", "running_variance"),
}  # fmt: skip

#: How many ways to give arrays to parameters by their sizes alone are tried at most.
_ASSIGNMENTS = 24

_BAGS = (
    "params", "parameters", "_params", "_parameters", "weights", "trainable", "variables", "nt_params", "state",
    "bn_param",
)  # fmt: skip
_GRADIENT_BAGS = (
    "grads",
    "gradients",
    "_grads",
    "_gradients",
    "grad",
    "dparams",
    "d_params",
    "derivatives",
    "gradient",
)
_GRADIENT_OF = (
    "d{}", "d_{}", "grad_{}", "{}_grad", "{}_gradient", "{}_grads", "{}_gradients", "gradient_{}", "g{}", "delta_{}",
    "{}_delta", "dL_d{}", "dl_d{}", "dJ_d{}", "nabla_{}", "{}grad", "grad{}", "{}_d", "{}_derivative", "d{}_", "_d{}",
    "derivative_{}", "{}_deriv", "grads_{}",
)  # fmt: skip


def find_parameters(layer: Any, adapter: Adapter | None, shapes: Mapping[str, tuple[int, ...]]) -> list[Wiring]:
    """Ways in which the layer's arrays may be torch's parameters, the likeliest first.

    Raises
    ------
    ManualBPError
        If a parameter cannot be found; it lists what the layer has.
    """
    said: Wiring = {}
    for name, paths in (adapter.params if adapter else {}).items():
        said[name] = () if paths is None else (paths,) if isinstance(paths, str) else tuple(paths)
    open_ = {name: shape for name, shape in shapes.items() if name not in said}
    if not open_:
        return [said]
    groups: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in open_.items():
        groups.setdefault(name.rpartition(".")[0], {})[name.rpartition(".")[2]] = shape
    found = _numbered(layer, groups) if len(groups) > 1 else None
    if found is None:
        try:
            found = _owned(layer, groups)
        except ManualBPError:
            found = list(islice(_by_shape(layer, open_), _ASSIGNMENTS))
            if not found:
                raise
    return [{name: {**said, **wiring}[name] for name in shapes} for wiring in found]


def _owned(layer: Any, groups: Mapping[str, Mapping[str, tuple[int, ...]]]) -> list[Wiring]:
    """Each group of torch's parameters belongs to one object: the layer itself, or one of those it is made of."""
    objects = list(owners(layer))
    options: list[Wiring] = [{}]
    for group, leaves in groups.items():
        for at, (prefix, owner) in enumerate(objects):
            ways = _ways(owner, leaves)
            if ways:
                named = [{f"{group}.{k}".lstrip("."): _prefixed(prefix, v) for k, v in way.items()} for way in ways]
                options = [{**option, **way} for option in options for way in named]
                if len(groups) > 1:
                    objects = objects[at + 1 :]  # the next group's object comes later
                break
        else:
            name, shape = next(iter(leaves.items()))
            full = f"{group}.{name}".lstrip(".")
            raise ManualBPError(
                f"{type(layer).__name__} has nothing that looks like {full!r} of shape {shape}; it has "
                f"{inventory(layer)}",
                hint=f"say where it is: Adapter(params={{{full!r}: 'its attribute'}})",
            )
    return options


def _by_shape(layer: Any, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Wiring]:
    """Ways to give each parameter an array of its size, whatever it is called: the forward pass tells the right one."""
    held = {path: read(layer, path) for path in _arrays(layer)}
    derived = {gradient for path in held for gradient in gradient_paths("", path).split("|")}
    own = {path: value for path, value in held.items() if path not in derived}
    fitting = [[path for path, value in own.items() if fits(value, shape)] for shape in shapes.values()]
    for chosen in product(*fitting):
        if len(set(chosen)) == len(chosen):
            yield {name: (path,) for name, path in zip(shapes, chosen, strict=True)}


def _arrays(layer: Any) -> Iterator[str]:
    """Paths of the arrays that the layer holds, as attributes or one mapping or list deep."""
    for name, value in getattr(layer, "__dict__", {}).items():
        if isinstance(value, Mapping):
            yield from (f"{name}[{key!r}]" for key, v in value.items() if isinstance(key, str) and _holds_array(v))
        elif isinstance(value, (list, tuple)):
            yield from (f"{name}[{i}]" for i, v in enumerate(value) if _holds_array(v))
        elif _holds_array(value):
            yield name


def _holds_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or boxed(value) is not None


def _prefixed(prefix: str, paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{prefix}.{p}" if prefix and not p.startswith("[") else prefix + p for p in paths)


def _ways(owner: Any, leaves: Mapping[str, tuple[int, ...]]) -> list[Wiring]:
    """How one object may hold a module's parameters."""
    if any("_l0" in leaf for leaf in leaves):
        from manual_bp.layer_objects._recurrent import recurrent

        return recurrent(owner, leaves)
    held: Wiring = {}
    for position, (leaf, shape) in enumerate(leaves.items()):
        places = list(places_of(owner, WORDS.get(leaf, (leaf,)), position))
        fitting = [path for path, value in places if fits(value, shape)] or [p for p, _ in places]
        if fitting:
            held[leaf] = (fitting[0],)
    if held.keys() == leaves.keys():
        return [held]
    if leaves.keys() == {"weight", "bias"} and held.keys() == {"weight"}:
        return _fused(owner, held["weight"][0], leaves["weight"])
    return []


def _fused(owner: Any, path: str, shape: tuple[int, ...]) -> list[Wiring]:
    """A dense weight with its bias as one more row or column."""
    array = read(owner, path)
    if not isinstance(array, np.ndarray) or array.ndim != 2 or len(shape) != 2:
        return []
    outputs, inputs = shape
    ways: list[Wiring] = []
    if array.shape == (inputs + 1, outputs):
        ways += [
            {"weight": (f"{path}[:-1]",), "bias": (f"{path}[-1]",)},
            {"weight": (f"{path}[1:]",), "bias": (f"{path}[0]",)},
        ]
    if array.shape == (outputs, inputs + 1):
        ways += [
            {"weight": (f"{path}[:, :-1]",), "bias": (f"{path}[:, -1]",)},
            {"weight": (f"{path}[:, 1:]",), "bias": (f"{path}[:, 0]",)},
        ]
    return ways


def _numbered(layer: Any, groups: Mapping[str, Mapping[str, tuple[int, ...]]]) -> list[Wiring] | None:
    """W1, b1, W2, b2 on one object; scales of normalisations are counted by themselves."""
    wiring: Wiring = {}
    counts = {True: 0, False: 0}
    start = 0 if any(True for _ in places_of(layer, ("W0", "w0_0", "weights0", "W_0"), None)) else 1
    for group, leaves in groups.items():
        norm = len(leaves.get("weight", ())) == 1
        number = counts[norm] + start
        counts[norm] += 1
        for leaf, shape in leaves.items():
            words = [form.format(w, number) for w in WORDS.get(leaf, (leaf,)) for form in ("{}{}", "{}_{}")]
            fitting = [path for path, value in places_of(layer, words, None) if fits(value, shape)]
            if not fitting:
                return None
            wiring[f"{group}.{leaf}".lstrip(".")] = (fitting[0],)
    return [wiring]


def places_of(owner: Any, words: Sequence[str], position: int | None) -> Iterator[tuple[str, Any]]:
    """Where an array of one of these names may be, with what is there now (None if it is not initialised yet).

    ``position`` is the place that it would have in a list of parameters.
    """
    bags = {bag: held for bag in _BAGS if isinstance(held := _attribute(owner, bag), (Mapping, list, tuple))}
    for word in words:
        value = _attribute(owner, word, missing=_NOTHING)
        if value is not _NOTHING and _is_parameter(value):
            yield word, read(owner, word)
        for bag, held in bags.items():
            if isinstance(held, Mapping) and word in held:
                path = f"{bag}[{word!r}]"
                if isinstance(held[word], (tuple, list)):  # (value, gradient)
                    path += "[0]"
                if _is_parameter(held[word]) or read(owner, path) is not None:
                    yield path, read(owner, path)
    for bag, held in bags.items():
        if position is not None and isinstance(held, (list, tuple)) and position < len(held):
            yield f"{bag}[{position}]", read(owner, f"{bag}[{position}]")


_NOTHING = object()


def _attribute(owner: Any, name: str, missing: Any = None) -> Any:
    try:
        return getattr(owner, name, missing)
    except Exception:  # noqa: BLE001  # a property of somebody else's that does not work yet
        return missing


def _is_parameter(value: Any) -> bool:
    return value is None or isinstance(value, np.ndarray) or boxed(value) is not None


def fits(value: Any, shape: tuple[int, ...]) -> bool:
    """Whether an array may hold this parameter: the same sizes in any order, ones aside."""
    return isinstance(value, np.ndarray) and sorted(n for n in value.shape if n > 1) == sorted(
        n for n in shape if n > 1
    )


def owners(layer: Any, depth: int = 3) -> Iterator[tuple[str, Any]]:
    """The layer, and the objects it is made of, with their paths, in the order of their attributes."""
    todo: deque[tuple[str, Any, int]] = deque([("", layer, 0)])
    seen: set[int] = set()
    while todo:
        prefix, owner, level = todo.popleft()
        if id(owner) in seen:
            continue
        seen.add(id(owner))
        if not isinstance(owner, (Mapping, list, tuple)):
            yield prefix, owner
        if level < depth:
            todo.extend((path, value, level + 1) for path, value in _parts(prefix, owner))


def _parts(prefix: str, owner: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(owner, Mapping):
        pairs = [(f"{prefix}[{key!r}]", value) for key, value in owner.items() if isinstance(key, (str, int))]
    elif isinstance(owner, (list, tuple)):
        pairs = [(f"{prefix}[{i}]", value) for i, value in enumerate(owner)]
    else:
        pairs = [(f"{prefix}.{name}".lstrip("."), value) for name, value in getattr(owner, "__dict__", {}).items()]
    for path, value in pairs:
        held = isinstance(value, (Mapping, list, tuple)) and len(value) < 200
        if held or (hasattr(value, "__dict__") and not isinstance(value, (type, types.ModuleType, types.FunctionType))):
            yield path, value


# ---------------------------------------------------------------------- gradients


@cache
def gradient_paths(name: str, parameter: str) -> str:
    """Where the gradient of what is at ``parameter`` may be after the backward pass, separated by ``|``."""
    path, cut = _cut(parameter)
    owner, word, where = _split(path)
    leaf = name.rpartition(".")[2]
    prefix = f"{owner}." if owner else ""
    tries: list[str] = [f"{path}.{g}{box}" for g in ("grad", "gradient", "g", "d") for box in ("", ".data")]
    if where.endswith("[0]"):
        tries.append(path[: -len("[0]")] + "[1]")
    if word.isdigit():  # the third of params is the third of grads
        tries += [f"{prefix}{bag}[{word}]" for bag in _GRADIENT_BAGS]
    words = [w for w in dict.fromkeys((word, *WORDS.get(leaf, (leaf,)))) if not w.isdigit()]
    if word[-1:].isdigit() and len(word) > 1:
        words = [word]  # W2: never the gradient of some other weight
    for w in words:
        tries += [
            f"{prefix}{bag}[{key!r}]"
            for bag in _GRADIENT_BAGS
            for key in (w, f"d{w}", f"d_{w}", f"grad_{w}", f"{w}_grad")
        ]
        tries += [prefix + pattern.format(w) for pattern in _GRADIENT_OF]
        tries += [prefix + pattern.format(w.lower()) for pattern in _GRADIENT_OF]
    return "|".join(t + cut for t in dict.fromkeys(tries))


def _cut(path: str) -> tuple[str, str]:
    """A path, and the slice of the array at its end."""
    head, bracket, tail = path.rpartition("[")
    sliced = bracket and (":" in tail or "," in tail or (head and tail.lstrip("-")[:-1].isdigit() and tail[0] == "-"))
    return (head, bracket + tail) if sliced else (path, "")


def _split(path: str) -> tuple[str, str, str]:
    """Owner, the parameter's own word, and the part of the path that holds it."""
    if path.endswith("]"):
        bag, _, key = path.rpartition("[")
        word = key[:-1].strip("'\"")
        if word == "0" and bag.endswith("]"):
            bag, _, key = bag.rpartition("[")
            word = key[:-1].strip("'\"")
            return bag.rpartition(".")[0], word, path[len(bag) :]
        return bag.rpartition(".")[0], word, path[len(bag) :] if not word.isdigit() else ""
    owner, _, word = path.rpartition(".")
    if word in BOXES and owner:
        return _split(owner)
    if owner.rpartition(".")[2] in _BAGS:  # params.W is params['W']
        owner = owner.rpartition(".")[0]
    return owner, word, ""


def inventory(layer: Any) -> str:
    """What a layer has, for an error message."""
    names = [n for n in vars(layer) if not n.startswith("__")] if hasattr(layer, "__dict__") else []
    return ", ".join(names[:14]) or "no attributes"
