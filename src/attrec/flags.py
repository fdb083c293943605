"""Command-line flags that derive from the declared options."""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from attrec.config import OptionSpec, option_specs
from attrec.errors import ConfigError

PANELS = {"model": "Model", "train": "Training", "protocol": "Protocol", "data": "Data"}


def with_options(*sections: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag for each option of the given sections.

    The command takes them as its last parameter ``overrides``, a mapping of those that were given
    on the line: a flag left out overrides nothing, so a preset or a TOML file keeps its word.
    """
    specs = [spec for spec in option_specs() if spec.section in sections]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[:-1]
        flags = [
            inspect.Parameter(
                spec.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[_flag_kind(spec) | None, _flag(spec)],
            )
            for spec in specs
        ]

        @functools.wraps(command)
        def wrapped(**arguments: Any) -> None:
            given = {spec.name: arguments.pop(spec.name) for spec in specs}
            overrides = {
                spec.name: _value(spec, given[spec.name])
                for spec in specs
                if given[spec.name] is not None
            }
            command(**arguments, overrides=overrides)

        keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        wrapped.__signature__ = inspect.Signature([*keyword, *flags])  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in [*keyword, *flags]}
        return wrapped

    return decorate


def as_flags(overrides: Mapping[str, Any]) -> str:
    """Write options as the flags that give them.

    Examples
    --------
    >>> as_flags({"on_bad_row": "skip", "quotes": False, "cutoffs": (5, 10)})
    ' --on-bad-row skip --no-quotes --cutoffs 5,10'
    """
    words = []
    for name, value in overrides.items():
        word = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{word}")
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [f"--{word}", shlex.quote(text)]
    return "".join(f" {word}" for word in words)


def _flag(spec: OptionSpec) -> Any:
    word = spec.name.replace("_", "-")
    names = [f"--{word}/--no-{word}"] if spec.kind is bool else [f"--{word}"]
    default = ",".join(map(str, spec.default)) if spec.kind is not bool and get_origin(
        spec.kind
    ) is tuple else str(spec.default)  # fmt: skip
    return typer.Option(
        *names,
        help=spec.doc if spec.default is None else f"{spec.doc} [dim]\\[{default}][/dim]",
        show_default=False,
        rich_help_panel=PANELS[spec.section],
        metavar=None if spec.kind is bool else _metavar(spec),
    )


def _flag_kind(spec: OptionSpec) -> Any:
    if get_origin(spec.kind) in (Literal, tuple):
        return str
    return spec.kind


def _metavar(spec: OptionSpec) -> str:
    if get_origin(spec.kind) is Literal:
        return "|".join(get_args(spec.kind))
    if get_origin(spec.kind) is tuple:
        return "N,N,…"
    return {int: "N", float: "X", str: "TEXT"}[spec.kind]


def _value(spec: OptionSpec, text: Any) -> Any:
    if get_origin(spec.kind) is not tuple:
        return text
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--{spec.name.replace('_', '-')} {text}: expected whole numbers with commas between, "
            "such as 10,50"
        ) from None
