"""Which options `attrec tune` searches, and where: the declared spaces, and what a user asks for.

A search is written ``NAME``, ``NAME=low..high``, ``NAME=low..high:log`` or ``NAME=a,b,c``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin

from attrec.config import Among, Between, Options, OptionSpec, Space, option_specs, section_of
from attrec.errors import ConfigError

_RANGE = re.compile(r"(?P<low>.+?)\.\.(?P<high>[^:]+)(?::(?P<scale>log|linear))?")


def spaces_of(
    options: Options, given: Iterable[str] = (), search: str | Iterable[str] | None = None
) -> dict[str, Space]:
    """Choose the options to search, each with its space.

    Parameters
    ----------
    options : Options
        What the search begins with: every space is widened to hold its values.
    given : iterable of str
        Options that were set on purpose: they stay as they are.
    search : str or iterable of str, optional
        Only these; without it, every option with a declared space that was not ``given``.

    Returns
    -------
    dict of Space
        By option, in the order of their declaration.

    Raises
    ------
    ConfigError
        An option is unknown, is not one to search, is given too, or a value of its space is out of
        range.

    Examples
    --------
    >>> options = Options.of("paper-sparse")
    >>> for name, space in spaces_of(options, search=["margin", "dropout=0,0.25"]).items():
    ...     print(name, space)
    dropout 0.0,0.25
    margin 0.1..1:log
    """
    if search is None:
        return _declared(options, set(given))
    asked: dict[str, Space] = {}
    for text in [search] if isinstance(search, str) else search:
        name, _, where = text.partition("=")
        spec = _spec_of(name.strip(), options)
        if spec.name in asked:
            raise ConfigError(f"--search {text}: {spec.name} is asked for twice; name it once")
        if spec.name in given:
            raise ConfigError(
                f"--search {text}: {spec.name} is given a value too; leave out one of the two"
            )
        asked[spec.name] = _parsed(spec, where.strip(), text, options)
    if not asked:
        raise ConfigError("nothing is to be searched; name an option")
    for name, space in asked.items():
        others = {other: _ends(it) for other, it in asked.items() if other != name}
        _check_edges(options, name, space, others)
    return {
        spec.name: _holding(asked[spec.name], options.value(spec.name), spec)
        for spec in option_specs()
        if spec.name in asked
    }


def _declared(options: Options, given: set[str]) -> dict[str, Space]:
    """Return the declared spaces, without those that the other options rule out."""
    found: dict[str, Space] = {}
    for spec in option_specs():
        space = spec.search.get(options.model.architecture)
        if space is None or spec.name in given:
            continue
        try:
            _check_edges(options, spec.name, space)
            found[spec.name] = _holding(space, options.value(spec.name), spec)
        except ConfigError:
            continue
    if not found:
        raise ConfigError(
            "every option that could be searched is given a value; leave some out, or name them "
            "with --search"
        )
    return found


def _spec_of(name: str, options: Options) -> OptionSpec:
    section_of(name)
    spec = next(spec for spec in option_specs() if spec.name == name)
    if not spec.searchable:
        raise ConfigError(
            f"--search {name}: this option says how a training runs or is judged, and is not "
            "searched; set it by its flag"
        )
    if not spec.is_for(options.model.architecture):
        raise ConfigError(
            f"--search {name}: means nothing to architecture = {options.model.architecture!r}; "
            f"leave it out, or take a preset of the {spec.of} architecture"
        )
    return spec


def _parsed(spec: OptionSpec, where: str, text: str, options: Options) -> Space:
    """Read what stands behind ``NAME=``; without it, the declared space."""
    declared = spec.search.get(options.model.architecture)
    if not where:
        if declared is None:
            raise ConfigError(
                f"--search {text}: {spec.name} has no space of its own; give one, such as "
                f"{_example(spec)}"
            )
        return declared
    if ".." not in where:
        return Among(tuple(_read(spec, part, text) for part in where.split(",")))
    match = _RANGE.fullmatch(where)
    if match is None or spec.kind not in (int, float) or spec.even:
        raise ConfigError(f"--search {text}: expected {_example(spec)}")
    usual = isinstance(declared, Between) and declared.log
    log = {"log": True, "linear": False, None: usual}[match["scale"]]
    space = Between(_read(spec, match["low"], text), _read(spec, match["high"], text), log)
    if space.low >= space.high:
        raise ConfigError(f"--search {text}: the range is empty; give the lower end first")
    _check_log(spec, space.low, space)
    return space


def _read(spec: OptionSpec, text: str, whole: str) -> Any:
    """Read one value of an option; its range is checked with all the others'."""
    text = text.strip()
    try:
        if spec.kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if get_origin(spec.kind) is Literal:
            return {str(choice): choice for choice in get_args(spec.kind)}[text]
        return spec.kind(text)
    except (KeyError, ValueError):
        raise ConfigError(
            f"--search {whole}: {text!r} is no value of {spec.name}; expected {_example(spec)}"
        ) from None


def _example(spec: OptionSpec) -> str:
    if spec.kind is bool:
        return f"{spec.name}=true,false"
    if get_origin(spec.kind) is Literal:
        return f"{spec.name}={','.join(get_args(spec.kind))}"
    if spec.even:
        return f"{spec.name}=32,64,128"
    some = "2..8 or {0}=2,4,8" if spec.kind is int else "0.1..0.9 or {0}=0.1,0.5"
    return f"{spec.name}={some.format(spec.name)}"


def _ends(space: Space) -> tuple[Any, ...]:
    return space.values if isinstance(space, Among) else (space.low, space.high)


def _check_edges(
    options: Options, name: str, space: Space, others: Mapping[str, Iterable[Any]] | None = None
) -> None:
    """Put each end of a space to the option's checks, beside one of ``others`` where it must."""
    beside = [{other: it} for other, ends in (others or {}).items() for it in ends]
    for value in _ends(space):
        if not any(_goes(options, {name: value, **other}) for other in beside):
            options.with_(**{name: value})


def _goes(options: Options, values: Mapping[str, Any]) -> bool:
    try:
        options.with_(**values)
    except ConfigError:
        return False
    return True


def _holding(space: Space, value: Any, spec: OptionSpec) -> Space:
    """Widen a space to the value that the search begins with."""
    if isinstance(space, Among):
        kept = dict.fromkeys(space.values)
        return space if value in kept else Among(tuple(sorted((*kept, value))))
    _check_log(spec, value, space)
    return replace(space, low=min(space.low, value), high=max(space.high, value))


def _check_log(spec: OptionSpec, value: float, space: Between) -> None:
    if space.log and value <= 0:
        raise ConfigError(
            f"--search {spec.name}={space}: a logarithmic range does not hold {value:g}; list "
            f"values instead, such as {spec.name}={value:g},{space.high / 10:g},{space.high:g}"
        )


def in_words(spaces: Mapping[str, Space]) -> dict[str, str]:
    """Write the spaces as ``--search`` reads them."""
    return {name: str(space) for name, space in spaces.items()}


def short(value: Any) -> str:
    """Write a value of an option as tables and pictures show it, to three digits."""
    return f"{value:.3g}" if type(value) is float else str(value).lower()
