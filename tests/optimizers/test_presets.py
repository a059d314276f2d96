"""Presets explain every argument, in the words of the kernel where it means the same there."""

import inspect
import re

import pytest
from cases import CASES

from gradtx.core.composites import Preset
from gradtx.core.transformation import Transformation
from gradtx.core.walk import everything
from gradtx.matrix import adam_mini, apollo, galore, kl_soap, kron, msign_sgd, scion, shampoo, soap, soap_muon
from gradtx.optimizers import (
    accelegrad,
    acprop,
    adabelief,
    adadelta,
    adafactor,
    adagrad,
    adam,
    adamax,
    adan,
    ademamix,
    adopt,
    amsgrad,
    cocob,
    dadapt,
    dog,
    layerwise,
    ldog,
    lion,
    madgrad,
    mars,
    momo,
    newton_cg,
    noisy,
    novograd,
    optimistic,
    polyak,
    prodigy,
    projected_amsgrad,
    radam,
    rmsprop,
    rprop,
    sgd,
    sign,
    sm3,
    sophia,
    storm,
    unixgrad,
    yogi,
)
from gradtx.wrappers import mechanize, ranger

FILES = [accelegrad, adagrad, adam, adamax, amsgrad, lion, noisy, novograd]
FILES += [acprop, adam_mini, apollo, msign_sgd, newton_cg, dog, madgrad, mars, polyak, prodigy]
FILES += [adabelief, adadelta, adan, ademamix, adopt, layerwise, optimistic, rprop, yogi]
FILES += [kron, scion, shampoo]
FILES += [adafactor, cocob, dadapt, galore, ldog, mechanize, momo, sm3, sophia]
FILES += [projected_amsgrad, radam, ranger, rmsprop, sgd, sign, storm, unixgrad]
FILES += [kl_soap, soap, soap_muon]
CLASSES = {
    name: cls
    for file in FILES
    for name, cls in vars(file).items()
    if isinstance(cls, type) and issubclass(cls, Transformation) and cls.__module__ == file.__name__
}
PRESETS = {name: cls for name, cls in CLASSES.items() if issubclass(cls, Preset)}
OWN_MEANING = {
    "learning_rate": "says how far one unit moves the parameters, which depends on what comes before it",
    "weight_decay": "says what it does at its place in the chain",
    "weight_dimension_numbers": "says what None means: routing by path in a preset, all matrices in a kernel",
    "slow_step_size": "is called alpha in the formula of `lookahead`",
}


def explained(cls: type) -> dict[str, str]:
    """The texts of the arguments by name, each on one line."""
    doc = inspect.cleandoc(cls.__doc__ or "")
    section = re.search(r"^Args:\n((?:  .*\n)*)", doc, re.MULTILINE)
    items = re.findall(r"^  (\w+): (.*(?:\n    .*)*)", section[1], re.MULTILINE) if section else []
    return {name: " ".join(text.split()) for name, text in items}


@pytest.mark.parametrize("name", CLASSES)
def test_every_argument_is_explained(name: str) -> None:
    texts = explained(CLASSES[name])
    assert list(texts) == list(inspect.signature(CLASSES[name]).parameters)
    for text in texts.values():
        assert not text.startswith("as in"), text


def words_of_kernels(preset: Transformation) -> dict[str, str]:
    """The texts of arguments by name, of the first one inside a preset that has them."""
    texts: dict[str, str] = {}
    for kernel in everything(preset):
        if not isinstance(kernel, Preset):
            texts = explained(type(kernel)) | texts
    return texts


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_its_kernels_words(name: str) -> None:
    texts, words = explained(PRESETS[name]), words_of_kernels(CASES[name].make())
    shared = (texts.keys() & words.keys()) - OWN_MEANING.keys()
    assert {argument: texts[argument] for argument in shared} == {argument: words[argument] for argument in shared}
    assert shared or name in ("sign_sgd", "sm3")  # these call what they share by other names
