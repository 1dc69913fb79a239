"""`secondsight finetune` and `secondsight scenes`: train a model on captions, draw a world to train it on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secondsight.cli.common import Data, Quiet, out, plain_errors, plain_table, print_written, progress_line, spinner

BatchSize = Annotated[int, typer.Option(help="Pairs in a batch, of all processes together.")]
WarmUp = Annotated[int | None, typer.Option(help="Steps of the rise; default: the first epoch's.")]
FinalRate = Annotated[float | None, typer.Option(help="Learning rate of the last step; default: no decrease.")]
EvaluateOn = Annotated[
    str | None, typer.Option("--evaluate", help="Data on which to compare grounding before and after.")
]


def finetune(
    data: Data,
    model: Annotated[str, typer.Option(help="open_clip:ARCHITECTURE/TAG_OR_PATH, or scenes.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for checkpoints, log and report.")],
    epochs: Annotated[int, typer.Option(help="Times through the data.")] = 5,
    batch: BatchSize = 64,
    lr: Annotated[float, typer.Option(help="Learning rate after the warm-up.")] = 1e-5,
    start_lr: Annotated[float, typer.Option(help="Learning rate before it.")] = 1e-7,
    warm_up: WarmUp = None,
    final_lr: FinalRate = None,
    weight_decay: Annotated[float, typer.Option(help="AdamW's.")] = 1e-4,
    precision: Annotated[str, typer.Option(help="no, bf16 or fp16.")] = "no",
    limit: Annotated[int | None, typer.Option(help="Use the first pairs only.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order of pairs.")] = 0,
    evaluate_on: EvaluateOn = None,
    evaluate_limit: Annotated[int | None, typer.Option(help="Look at the first captions of it only.")] = None,
    quiet: Quiet = False,
) -> None:
    """Fine-tune an open_clip model, or the scenes model, on captions, and compare what it grounds before and after."""
    with plain_errors():
        with spinner("loading libraries"):
            from secondsight.data import open_data
            from secondsight.encoders.registry import load
            from secondsight.evaluation import evaluate
            from secondsight.training import Recipe, tuned_name
            from secondsight.training import finetune as train

        recipe = Recipe(epochs, batch, lr, start_lr, warm_up, weight_decay, precision, seed, final_lr)
        captions = open_data(data)
        test_captions = open_data(evaluate_on) if evaluate_on else None
        write = progress_line(quiet)

        def progress(step: int, whole: int, loss: float) -> None:
            write(f"step {step} of {whole}, loss {loss:.4f}", step >= whole)

        checkpoint = train(model, captions, out_dir, recipe, limit=limit, progress=progress)
        if not quiet:
            print_written(checkpoint)
        if test_captions is not None:
            models = [("before", load(model)), ("after", load(tuned_name(model, checkpoint)))]
            tables = evaluate("compare", test_captions, models, out=out_dir, limit=evaluate_limit, seed=seed)
            if not quiet:
                out.print(plain_table("overall", tables["overall"]))
                print_written(out_dir / "compare" / "report.html")


def scenes(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for images and annotations in COCO's format.")],
    n: Annotated[int, typer.Option("--n", help="How many scenes.")] = 200,
    style: Annotated[str, typer.Option(help="noto, twemoji or fluent.")] = "noto",
    seed: Annotated[int, typer.Option(help="Seed of the scenes.")] = 0,
    captions: Annotated[int, typer.Option(help="Captions a scene.")] = 1,
    size: Annotated[int, typer.Option(help="Pixels of the square images.")] = 96,
    split: Annotated[str, typer.Option(help="The split's name in the files.")] = "val",
) -> None:
    """Draw scenes with known objects, captions, boxes and masks, as a data set in COCO's format."""
    with plain_errors():
        with spinner("loading libraries"):
            from secondsight.data.scenes import Scenes, export_coco
        world = Scenes(n, style=style, seed=seed, captions=captions, size=size)
        with spinner(f"drawing {n} scenes"):
            folder = export_coco(world, out_dir, split)
        out.print(f"wrote {folder}: read it as --data coco:{folder}#{split}", soft_wrap=True)
