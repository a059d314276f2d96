"""States as plain dicts that outlive an edit of the optimizer: save, load, reset a part."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import checks
from gradtx.core.checked import checked
from gradtx.core.config import to_config
from gradtx.core.domains import one_of
from gradtx.core.pairs import Inner, as_transformation
from gradtx.core.transformation import Transformation
from gradtx.core.types import DType, Json, Leaf, Params, State, Tree
from gradtx.storage.matching import Rename, Sides, pattern_of, some
from gradtx.storage.names import entries_of, names_of
from gradtx.storage.sharding import init_part, state_shapes

SCHEMA = 1
"""The version of the form of checkpoints. A later gradtx reads all earlier ones."""
_KEYS = ("version", "optimizer", "config", "entries", "leaves")

Saved = Mapping[str, Tree]
"""What `state_dict` gives."""
Missing = Annotated[str, one_of("error", "init")]


@checked
def state_dict(tx: Inner, state: State) -> dict[str, Tree]:
    """A state as a dict of arrays under names that outlive an edit of the optimizer.

    The names are fields of states and paths of parameters: `mu/layers/0/kernel`, `count`. Labels of
    `partition`, then names of transformations, stand before them only where two were equal. Where
    in a chain something stands is no part of them, so that `load_state` finds its arrays after a
    link was put in. Orbax, pickle and NumPy store the dict as it is.

    Args:
      tx: the transformation.
      state: its state; or the shapes of `jax.eval_shape(tx.init, params)`, which give shapes.

    Returns:
      A dict: `version` of the form, a whole number; texts `optimizer` (`repr(tx)`), `config`
      (`to_config(tx)` as JSON, empty where a function is no value) and `entries` (JSON: what each
      array belongs to); `leaves`, arrays by name. Random keys are their data.

    Raises:
      TypeError: the state belongs to another transformation.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1, momentum=0.9))
      >>> saved = gradtx.state_dict(tx, tx.init({"w": jnp.ones(2)}))
      >>> sorted(saved["leaves"])
      ['clipped', 'learning_rate', 'norm', 'steps', 'trace/w']
    """
    entries = entries_of(tx, state)
    names = names_of(entries)
    about = {
        name: {"owner": list(entry.owner), "field": entry.field, "dtype": str(jnp.result_type(entry.leaf))}
        for name, entry in zip(names, entries, strict=True)
    }
    leaves = {name: _stored(entry.leaf) for name, entry in zip(names, entries, strict=True)}
    config = json.dumps(_config(as_transformation(tx)))
    texts = {"optimizer": repr(tx), "config": config, "entries": json.dumps(about)}
    return {"version": SCHEMA, **texts, "leaves": leaves}


class LoadedState(NamedTuple):
    """What `load_state` gives. Prints as a list of what became of each array.

    Attributes:
      state: for the transformation that it was loaded for.
      carried: names of arrays that come from the checkpoint.
      initialized: names of arrays that the checkpoint lacks, as `tx.init` gives them.
      dropped: names of arrays of the checkpoint that the state has no place for.
    """

    state: State
    carried: tuple[str, ...]
    initialized: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        lists = {"carried": self.carried, "initialized": self.initialized, "dropped": self.dropped}
        return "\n".join(f"{what}: {', '.join(names) or 'nothing'}" for what, names in lists.items())


@checked
def load_state(
    tx: Inner,
    params: Params,
    saved: Saved,
    missing: Missing = "error",
    rename: Rename | None = None,
) -> LoadedState:
    r"""A state from what `state_dict` gave, also after an edit of the optimizer.

    An array is carried over where its name and the transformation that it belongs to are in both,
    whatever stands around: a clip put into the chain, a schedule in the place of a constant, a
    wrapper. Hyperparameters may differ; arrays are cast to the dtypes that `tx` keeps. A schedule
    that takes the place of a constant goes on at the step count of the checkpoint, if that has one.
    Nothing that runs is touched: the result is a new state, where `state_sharding` says for the
    devices of `params`.

    Args:
      tx: the transformation that goes on.
      params: its parameters.
      saved: what `state_dict` gave, with arrays of JAX or NumPy.
      missing: what to do where the checkpoint lacks an array: 'error', or 'init' for the one of
        `tx.init(params)`.
      rename: from names in the checkpoint to names in the new state: regular expressions that match
        whole names, of which the first decides, and replacements (`r"\1"` is a group). A list of
        replacements copies; None drops. What is renamed is carried over whatever it belonged to.

    Returns:
      A `LoadedState`: the state, and the names of what was carried, initialized and dropped.

    Raises:
      TypeError: `saved` is no checkpoint of a state.
      ValueError: it is cut short, or of a newer form, or of another optimizer of the same structure
        (`adamw`, `nadamw`); it lacks an array; a shape differs; a renaming fits nothing.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"w": jnp.ones(2)}
      >>> tx = gradtx.adamw(1e-3)
      >>> saved = gradtx.state_dict(tx, tx.init(params))
      >>> edited = gradtx.chain(gradtx.clip_by_global_norm(1.0), tx)
      >>> print(gradtx.load_state(edited, params, saved, missing="init"))
      carried: count, mu/w, nu/w, learning_rate
      initialized: steps, clipped, norm
      dropped: nothing
    """
    tx = as_transformation(tx)
    about = _read(saved)
    state = state_shapes(tx, params)
    entries = entries_of(tx, state)
    names = names_of(entries)
    both = Sides(tx, saved, dict(zip(names, entries, strict=True)), about)
    sources, dropped = both.renamed(rename or {})
    sources |= both.matched(sources, dropped)
    sources |= both.counts(sources, dropped)
    dropped += tuple(name for name in about if name not in {*sources.values(), *dropped})
    initialized = tuple(name for name in names if name not in sources)
    if initialized and missing == "error":
        both.raise_missing(initialized, dropped)
    fitted = {}
    for i, (name, entry) in enumerate(zip(names, entries, strict=True)):
        if (source := sources.get(name)) is not None:
            fitted[i] = _fitted(source, saved["leaves"][source], about[source]["dtype"], entry.leaf)
    where = [entries[i].leaf.sharding for i in fitted]
    moved = jax.device_put(list(fitted.values()), where, may_alias=False)  # steps overwrite them, not what was saved
    values = _initial(tx, params, [i for i in range(len(names)) if i not in fitted], state) | dict(zip(fitted, moved, strict=True))
    new = jax.tree.structure(state).unflatten(values[i] for i in range(len(names)))
    return LoadedState(new, tuple(name for name in names if name in sources), initialized, dropped)


@checked
def reset(tx: Inner, params: Params, state: State, path: str) -> State:
    """A state in which some arrays are again as `tx.init(params)` gives them.

    Args:
      tx: the transformation.
      params: the parameters.
      state: its state.
      path: regular expression that matches the whole names of those arrays, as `state_dict` names
        them.

    Returns:
      The new state.

    Raises:
      ValueError: no name matches.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.sgd(0.1, momentum=0.9), {"body": jnp.ones(1), "head": jnp.ones(1)}
      >>> _, state = tx.update(params, tx.init(params))
      >>> state = gradtx.reset(tx, params, state, ".*/head")
      >>> {name: float(x[0]) for name, x in state[0].trace.items()}
      {'body': 1.0, 'head': 0.0}
    """
    names = names_of(entries_of(tx, state))
    chosen = [i for i, name in enumerate(names) if pattern_of("path", path).fullmatch(name)]
    if not chosen:
        raise checks.WrongValue(
            f"path is {path!r}, which matches no name of the state: {some(names)}.{checks.did_you_mean(path, names)}"
        )
    leaves, treedef = jax.tree.flatten(state)
    tx = as_transformation(tx)
    for i, value in _initial(tx, params, chosen, state_shapes(tx, params)).items():
        leaves[i] = value
    return treedef.unflatten(leaves)


def _config(tx: Transformation) -> Json:
    """`to_config(tx)`, or text without content where something in it is no value."""
    try:
        return to_config(tx)
    except (TypeError, ValueError):
        return ""


def _is_key(x: Leaf) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key)


def _stored(x: Leaf) -> Leaf:
    """An array as it is stored: of random keys the data, of shapes the shape."""
    if not _is_key(x):
        return x
    return jax.eval_shape(jax.random.key_data, x) if isinstance(x, jax.ShapeDtypeStruct) else jax.random.key_data(x)


def _read(saved: Saved) -> dict[str, dict]:
    """What each array of a checkpoint belongs to, after a check that it is one, and whole."""
    expected = "what gradtx.state_dict gives"
    if not isinstance(saved, Mapping) or not {"version", "leaves"} <= set(saved):
        raise checks.WrongType(f"saved is {checks.kind(saved)}, expected {expected}.")
    version = int(saved["version"])
    if version > SCHEMA:
        raise checks.WrongValue(f"saved has the version {version}, but this gradtx reads up to {SCHEMA}: a newer one wrote it.")
    lacking = [key for key in _KEYS if key not in saved]
    if lacking:
        raise checks.WrongType(f"saved lacks {some(lacking)}, expected {expected}.")
    try:
        about = json.loads(str(saved["entries"]))
    except json.JSONDecodeError as error:
        raise checks.WrongValue(f"the text saved['entries'] is cut short or was changed: {error}.") from None
    leaves = saved["leaves"]
    if lost := [name for name in about if name not in leaves]:
        raise checks.WrongValue(f"saved is cut short: it lacks {some(lost)}, which it had when it was written.")
    if foreign := [name for name in leaves if name not in about]:
        raise checks.WrongValue(f"saved has {some(foreign)}, which no state_dict wrote.")
    return about


def _initial(tx: Transformation, params: Params, places: Sequence[int], shapes: State) -> dict[int, Leaf]:
    """Some of the arrays of `tx.init(params)`; nothing else is computed."""
    return init_part(tx, params, lambda state: {i: jax.tree.leaves(state)[i] for i in places}, shapes) if places else {}


def _fitted(name: str, value: Leaf, dtype: str, like: jax.ShapeDtypeStruct) -> Leaf:
    """An array of a checkpoint in the dtype that the new state has; one of NumPy stays there."""
    shape = _stored(like).shape
    if np.shape(value) != shape:
        raise checks.WrongValue(
            f"the checkpoint's `{name}` has shape {np.shape(value)}, expected {shape}, the shape in the state of tx. "
            f"Leave it out with rename={{{name!r}: None}} and missing='init'."
        )
    if _is_key(like):
        kinds: list[Any] = []
        jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), like)  # it takes no shapes
        return jax.random.wrap_key_data(jnp.asarray(value), impl=kinds[0])
    value = value if isinstance(value, jax.Array) else np.asarray(value)
    if value.dtype.kind == "V":  # as NumPy's files keep bfloat16
        value = value.view(jnp.dtype(dtype))
    if _number(value.dtype) is not _number(like.dtype):
        raise checks.WrongValue(f"the checkpoint's `{name}` has dtype {value.dtype}, expected {like.dtype}, as in the state of tx.")
    return value if value.dtype == like.dtype else value.astype(like.dtype)


def _number(dtype: DType) -> type:
    """What kind of number a dtype holds."""
    return next(kind for kind in (jnp.floating, jnp.complexfloating, jnp.integer, jnp.generic) if jnp.issubdtype(dtype, kind))
