"""The sets of rules by name, with their parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxviz.errors import GradientError
from onnxviz.gradient.overrides.deconvnet import deconvnet_table
from onnxviz.gradient.overrides.deeplift import deeplift_table
from onnxviz.gradient.overrides.guided import guided_table
from onnxviz.gradient.overrides.lrp import lrp_table
from onnxviz.gradient.overrides.lrp_layers import LayerRule
from onnxviz.gradient.overrides.redirected import redirected_table
from onnxviz.gradient.registry import Table, standard_table

__all__ = ["RULE_SETS", "RuleSet", "rules_table"]

Parameter = float | str | tuple[float, ...] | None
Make = Callable[[str, Mapping[str, Parameter]], Table]
_BIASES = ("rule", "kept", "zero")


@dataclass(frozen=True)
class RuleSet:
    """A named set of rules.

    Attributes:
        about: What it is, in a line.
        make: Makes the table from the name of the set and the parameters.
        parameters: Parameter -> its default.
    """

    about: str
    make: Make
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def rules_table(rules: str) -> Table:
    """Return the table of a named set of rules.

    Args:
        rules: ``NAME`` or ``NAME:PARAMETER=VALUE,…``, such as ``guided`` or ``lrp-gamma:gamma=0.5``; bounds may have a
            value a channel, ``low=-2.1/-2/-1.8``. :data:`RULE_SETS` has the names.

    Raises:
        GradientError: There is no such set, or it has no such parameter.

    >>> rules_table("lrp-epsilon:epsilon=1e-4").method.name
    'lrp-epsilon'
    >>> sorted(RULE_SETS)[:4]
    ['deconvnet', 'deeplift', 'gradient', 'guided']
    """
    name, _, text = rules.partition(":")
    chosen = RULE_SETS.get(name.strip())
    if chosen is None:
        raise GradientError(f"there are no rules {name[:80]!r}", hint=f"the sets of rules are {', '.join(RULE_SETS)}")
    given: dict[str, Parameter] = dict(chosen.parameters)
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, sign, value = (part.strip() for part in item.partition("="))
        if key not in given or not sign:
            known = ", ".join(given) or "none"
            raise GradientError(
                f"{name} has no parameter {item[:80]!r}", hint=f"write {name}:PARAMETER=VALUE; parameters: {known}"
            )
        given[key] = _value(name, key, value)
    _fit_together(name, given)
    return chosen.make(name.strip(), given)


def _fit_together(name: str, given: Mapping[str, Parameter]) -> None:
    """Refuse parameters that are none of the rule.

    Raises:
        GradientError: Alpha less beta is not 1, or a lower bound lies above the upper one.
    """
    alpha, beta, low, high = (given.get(key) for key in ("alpha", "beta", "low", "high"))
    if isinstance(alpha, float) and isinstance(beta, float) and not (beta >= 0 and abs(alpha - beta - 1) < 1e-6):
        raise GradientError(
            f"{name}: alpha less beta is 1, not {alpha - beta:g}, and beta is not below 0",
            hint=f"write such as {name}:alpha=2,beta=1: other sums do not conserve relevance",
        )
    if low is None or high is None:
        return
    lows, highs = (one if isinstance(one, tuple) else (one,) for one in (low, high))
    if len(lows) != len(highs) and 1 not in (len(lows), len(highs)):
        raise GradientError(f"{name}: low has {len(lows)} channels and high has {len(highs)}")
    if not (np.array(lows, np.float64) < np.array(highs, np.float64)).all():
        raise GradientError(
            f"{name}: low lies below high at every channel", hint="what the first layer reads lies between"
        )


def _value(name: str, key: str, text: str) -> Parameter:
    """Read the value of a parameter."""
    if key == "bias":
        if text not in _BIASES:
            raise GradientError(f"{name}: bias is one of {', '.join(_BIASES)}, not {text[:80]!r}")
        return text
    try:
        numbers = tuple(float(part) for part in text.split("/"))
    except ValueError:
        raise GradientError(f"{name}: {key} is a number, not {text[:80]!r}") from None
    if key in ("epsilon", "gamma", "fold") and (len(numbers) > 1 or not 0 <= numbers[0] < float("inf")):
        raise GradientError(f"{name}: {key} is a number not below 0, not {text[:80]!r}")
    if not all(map(math.isfinite, numbers)):
        raise GradientError(f"{name}: {key} is finite, not {text[:80]!r}")
    if len(numbers) > 1 and key not in ("low", "high"):
        raise GradientError(f"{name}: {key} is one number, not {text[:80]!r}")
    return numbers if len(numbers) > 1 else numbers[0]


_COMMON: dict[str, Parameter] = {"epsilon": 1e-6, "bias": "rule", "fold": 1.0}
_BOX: dict[str, Parameter] = {"low": None, "high": None}


def _rule(kind: str, given: Mapping[str, Parameter]) -> LayerRule:
    names = {"epsilon", "gamma", "alpha", "beta", "low", "high", "bias"}
    return LayerRule(kind, **{key: value for key, value in given.items() if key in names})  # type: ignore[arg-type]


def _everywhere(kind: str, fixed: Mapping[str, Parameter] | None = None) -> Make:
    """Return what makes a table with one rule at all layers."""

    def make(name: str, given: Mapping[str, Parameter]) -> Table:
        rule = _rule(kind, {**given, **(fixed or {})})
        return lrp_table(name, lambda layer, first: rule, rule.epsilon, fold=bool(given["fold"]))

    return make


def _composite(conv: str, first: str | None, fixed: Mapping[str, Parameter], *, both: bool = False) -> Make:
    """Return what makes a table with the epsilon rule at dense layers, and others at convolutions and first layers.

    Args:
        conv: The rule at convolutions.
        first: The rule at first convolutions.
        fixed: Parameters of the rule at convolutions that are not given.
        both: Whether the rule at first convolutions holds at first dense layers too.
    """

    def make(name: str, given: Mapping[str, Parameter]) -> Table:
        dense, inner = _rule("epsilon", given), _rule(conv, {**given, **fixed})
        outer = _rule(first, given) if first is not None else None

        def choose(layer: str, is_first: bool) -> LayerRule:
            if is_first and outer is not None and (layer == "conv" or both):
                return outer
            return inner if layer == "conv" else dense

        return lrp_table(name, choose, dense.epsilon, fold=bool(given["fold"]))

    return make


_PLUS: dict[str, Parameter] = {"alpha": 1.0, "beta": 0.0}
_TWO_ONE: dict[str, Parameter] = {"alpha": 2.0, "beta": 1.0}

#: The sets of rules by name.
RULE_SETS: dict[str, RuleSet] = {
    "gradient": RuleSet("the true gradient", lambda name, given: standard_table()),
    "guided": RuleSet(
        "guided backpropagation (Springenberg et al. 2015): negative gradients stop at rectifiers too",
        lambda name, given: guided_table(),
    ),
    "deconvnet": RuleSet(
        "deconvolutional network (Zeiler and Fergus 2014): rectifiers rectify what comes back",
        lambda name, given: deconvnet_table(),
    ),
    "redirected": RuleSet(
        "redirected gradients (Olah et al. 2017): dead rectifiers let through what may revive them",
        lambda name, given: redirected_table(),
    ),
    "deeplift": RuleSet(
        "DeepLIFT (Shrikumar et al. 2017), Rescale rule: contributions to the difference from a baseline",
        lambda name, given: deeplift_table(),
    ),
    "lrp-epsilon": RuleSet(
        "LRP-ε at every layer (Bach et al. 2015): input times gradient, stabilised",
        _everywhere("epsilon"),
        _COMMON,
    ),
    "lrp-gamma": RuleSet(
        "LRP-γ at every layer (Montavon et al. 2019): positive weights are favoured; for activations not below 0",
        _everywhere("gamma"),
        {**_COMMON, "gamma": 0.25},
    ),
    "lrp-generalized-gamma": RuleSet(
        "LRP-γ for activations of both signs (Andéol et al. 2021)",
        _everywhere("generalized-gamma"),
        {**_COMMON, "gamma": 0.25},
    ),
    "lrp-alpha-beta": RuleSet(
        "LRP-αβ at every layer (Bach et al. 2015): positive and negative contributions apart",
        _everywhere("alpha-beta"),
        {**_COMMON, **_TWO_ONE},
    ),
    "lrp-z-plus": RuleSet(
        "LRP-z⁺ at every layer (Montavon et al. 2017): positive contributions alone",
        _everywhere("alpha-beta", _PLUS),
        _COMMON,
    ),
    "lrp-flat": RuleSet(
        "LRP-flat at every layer (Lapuschkin et al. 2019): all inputs of a sum alike",
        _everywhere("flat"),
        _COMMON,
    ),
    "lrp-w-square": RuleSet(
        "LRP-w² at every layer (Montavon et al. 2017): by the squares of the weights",
        _everywhere("w-square"),
        _COMMON,
    ),
    "lrp-epsilon-z-box": RuleSet(
        "LRP-zᴮ at first layers (Montavon et al. 2017), for inputs between low and high; ε at the others",
        _composite("epsilon", "z-box", {}, both=True),
        {**_COMMON, **_BOX},
    ),
    "lrp-epsilon-plus": RuleSet(
        "composite: ε at dense layers, z⁺ at convolutions",
        _composite("alpha-beta", None, _PLUS),
        _COMMON,
    ),
    "lrp-epsilon-plus-flat": RuleSet(
        "composite: ε at dense layers, z⁺ at convolutions, flat at first layers",
        _composite("alpha-beta", "flat", _PLUS, both=True),
        _COMMON,
    ),
    "lrp-epsilon-alpha2-beta1": RuleSet(
        "composite: ε at dense layers, α2β1 at convolutions",
        _composite("alpha-beta", None, _TWO_ONE),
        _COMMON,
    ),
    "lrp-epsilon-alpha2-beta1-flat": RuleSet(
        "composite: ε at dense layers, α2β1 at convolutions, flat at first layers",
        _composite("alpha-beta", "flat", _TWO_ONE, both=True),
        _COMMON,
    ),
    "lrp-epsilon-gamma-box": RuleSet(
        "composite: ε at dense layers, γ at convolutions, zᴮ at first convolutions",
        _composite("generalized-gamma", "z-box", {}),
        {**_COMMON, "gamma": 0.25, **_BOX},
    ),
}
