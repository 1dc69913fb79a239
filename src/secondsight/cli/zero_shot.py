"""`secondsight evaluate zero-shot`: classify labelled images by their classes' prompts, and say why answers are wrong."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondsight.cli.common import check_engine, import_ray_engine, print_answer, spinner
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.cli.evaluate import Request

OPTIONS = ("template", "templates", "classes", "articles", "alpha", "dtype")


def run_zero_shot(request: Request) -> None:
    """One call with its options; `template` may be repeated."""
    from secondsight.answers.zero_shot import zero_shot
    from secondsight.encoders.registry import load

    options = _options(request)
    for option, values in (("data", request.data), ("model", request.models), ("method", request.methods)):
        if len(values) > 1:
            raise InputError(f"'zero-shot' looks at one {option}: give one --{option}")
    if request.layers:
        raise InputError("'zero-shot' takes the layers with its method: --method NAME:layer=IMAGE/TEXT")
    check_engine(request.engine)
    if request.engine == "ray":
        settings = dict(address=request.address, actors=request.actors, gpus=request.gpus)
        options["engine"] = partial(import_ray_engine().decompose_with_ray, **settings)
    method = request.parsed_methods()[0][1] if request.methods else None
    (name,) = request.models or ["builtin"]
    with spinner(f"loading {name}"):
        model = load(name)
    answer = zero_shot(
        request.data[0], model, request.out_dir, method, limit=request.limit, progress=request.progress(), **options
    )
    if not request.quiet:
        print_answer(answer)


def _options(request: Request) -> dict[str, Any]:
    unknown = sorted(set(request.options) - set(OPTIONS))
    if unknown:
        raise InputError(f"'zero-shot' has no option {unknown[0]!r}; it has {', '.join(OPTIONS)}")
    options = {name: value for name, value in request.options.items() if name not in ("template", "templates")}
    # Templates are texts as they stand, and several may have the same name.
    templates = [text for name, _, text in (a.partition("=") for a in request.assignments) if name == "template"]
    if "templates" in request.options:
        if templates:
            raise InputError("give templates=FILE or template=TEXT, not both")
        options["templates"] = Path(str(request.options["templates"]))
    elif templates:
        options["templates"] = templates
    return options
