"""`resume convert SOURCE TARGET`: a source in another format, its optimizer included; of Keras 2 as of Keras 3."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resume.commands import quiet, table
from resume.errors import EXIT_COMPLETED, MissingObjectsError, UsageError
from resume.formats import trust

if TYPE_CHECKING:
    from resume.engine.convert import Conversion

_NAMES = 3  # of arrays shown a reason
_FLAVOURS = {"3": "keras", "2": "tf_keras"}


def run(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    named = [_pair(text) for text in options.custom]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quiet.standard_error():  # the user's modules may be the first to import TensorFlow
        custom = {name: _imported(path, f"--custom {name}") for name, path in named}
        from resume.engine import convert  # here, so that --help and usage errors need no TensorFlow

        try:
            done = convert.convert(
                options.source,
                options.target,
                custom_objects=custom,
                model=_called(options.model) if options.model else None,
                format=options.format,
                flavour=_FLAVOURS[options.keras],
                accept=[name for given in options.accept for name in given.split(",")],
                overwrite=options.force,
                trust=options.trust,
                trusted_modules=options.trusted_module,
            )
        except MissingObjectsError as error:
            raise UsageError(_missing(options.source, error.names)) from error
    if options.json:
        table.facts(done.json(), as_json=True)
    else:
        for line in lines(done):
            print(line)
    return EXIT_COMPLETED


def _missing(source: str, names: Sequence[str]) -> str:
    bare = [trust.bare(name) for name in names]
    options = "\n".join(f"  --custom {shlex.quote(name)}=YOUR.MODULE:{_attribute(name)}" for name in bare)
    return f"{source}: needs custom objects that nothing names. Add:\n{options}"


def _attribute(name: str) -> str:
    return name if name.isidentifier() else "FUNCTION"


def lines(done: Conversion) -> Iterator[str]:
    """All that there is to say about a conversion, the verdict first."""
    yield f"{done.source} -> {done.target} ({done.format}, {done.flavour})"
    yield from done.proof.lines()
    yield f"written and read back: {done.arrays} arrays bit-equal, {done.slots} of them slot variables"
    if done.differences:
        yield "in Keras 3 this model does not continue bit for bit as it did:"
        yield from (f"  {sentence}" for sentence in done.differences)
    if done.made:
        yield "computed, since no file held it:"
        yield from (f"  {name}: {how}" for name, how in done.made.items())
    if done.dropped:
        yield "left behind:"
        yield from (f"  {line}" for line in _by_reason(done.dropped))
    if done.unheld:
        yield f"not held by this format: {', '.join(done.unheld)}"


def _by_reason(dropped: Mapping[str, str]) -> Iterator[str]:
    names: dict[str, list[str]] = defaultdict(list)
    for name, why in dropped.items():
        names[why].append(name)
    for why, found in names.items():
        more = f" and {len(found) - _NAMES} more" if len(found) > _NAMES else ""
        yield f"{', '.join(found[:_NAMES])}{more}: {why}"


def _pair(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise UsageError(f"--custom {text}: NAME=MODULE:OBJECT is expected.")
    return name, path


def _imported(path: str, option: str) -> Any:
    module, _, attribute = path.replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{option}: {path}: {error}") from error


def _called(path: str) -> Any:
    function = _imported(path, "--model")
    if not callable(function):
        raise UsageError(f"--model: {path}: no function.")
    return function()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resume convert",
        description="Write a source in another format, its optimizer's state included; by default for Keras 3. What is "
        "written is read back and compared, array by array, before it gets its name. The source is only read.",
        epilog="For a model of Keras 2, each point is printed in which Keras 3 computes otherwise. Examples:\n"
        "  python -m resume convert run42.h5 run42.keras\n"
        "  python -m resume convert saved_model/ moved.keras --custom Gate=my.layers:Gate --custom gap=my.losses:gap\n"
        "  python -m resume convert weights_tf/ckpt moved.keras --model my.models:cnn\n"
        "  python -m resume convert runs/a/ a.h5\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SOURCE", help="a model file, a checkpoint, or a run directory")
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="NAME.keras, NAME.h5, or any other name for a directory in our own format, which train takes as +ckpt=",
    )
    parser.add_argument(
        "--format",
        choices=("keras", "h5", "native", "savedmodel"),
        help="where the name of TARGET does not say it (savedmodel: with --keras 2)",
    )
    parser.add_argument(
        "--keras", choices=("3", "2"), default="3", help="whose format (default 3; 2 is tf_keras)"
    )
    parser.add_argument(
        "--custom",
        metavar="NAME=MODULE:OBJECT",
        action="append",
        default=[],
        help="a class or function of your own, as the source calls it; once for each",
    )
    parser.add_argument(
        "--model",
        metavar="MODULE:FUNCTION",
        help="returns the model, built and compiled, where the source holds no architecture",
    )
    parser.add_argument(
        "--accept",
        metavar="NAME[,NAME]",
        action="append",
        default=[],
        help="what may start fresh (optimizer, say)",
    )
    parser.add_argument("--force", action="store_true", help="replace TARGET if it exists")
    parser.add_argument(
        "--trust",
        choices=("none", "config", "code"),
        default="config",
        help="what the source may bring to life",
    )
    parser.add_argument(
        "--trusted-module",
        metavar="MODULE",
        action="append",
        default=[],
        help="with --trust code: what it may import",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser
