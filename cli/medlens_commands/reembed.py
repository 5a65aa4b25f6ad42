"""reembed: another model for a store."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.medlens_commands._errors import reporting_errors, usage
from cli.medlens_commands._options import (
    DEFAULT_STORE,
    DeviceOption,
    ForceOption,
    FormatOption,
    StoreOption,
    open_store,
)
from cli.medlens_output.formats import Format, write_rows
from cli.medlens_output.lines import say
from cli.medlens_output.progress import duration, progress_bar
from retrieval.errors import QueryError
from retrieval.neutral import neutral_values

if TYPE_CHECKING:
    from indexer.run.reembedding import ReembedProgress, ReembedReport


def reembed(
    store: StoreOption = DEFAULT_STORE,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            envvar="MEDLENS_MODEL",
            help="The model to change to: a shipped one, a folder, hf-hub:ORG/REPO, or ARCHITECTURE@CHECKPOINT. "
            "Default: that of a change that was begun, else the one that ships with medlens.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding processes. Default: one per core.")] = None,
    drop_unreadable: Annotated[
        bool,
        typer.Option("--drop-unreadable", help="Leave out what can't be read again; else the store keeps its model."),
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Drop what was made of a change to another model, and begin this one.")
    ] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Drop what was made of a change, and keep the store's model.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write unreadable files here, one JSON line each.")] = None,
    style: FormatOption = None,
    force: ForceOption = False,
) -> None:
    """Change the model of a store: encode its pictures and reports anew, then swap all vectors at once.

    The files are read again from where they were indexed. Until the swap the store answers by its former model. If it
    is stopped, the same command goes on. Exit code 3 if files can't be read again: the store then keeps its model.
    """
    from indexer.output_formats import json_lines
    from indexer.outputs import Output, require_not_of_archive, require_outputs
    from indexer.tasks import reembedding

    with reporting_errors(style) as chosen, usage(style):
        if abandon and (restart or drop_unreadable):
            raise QueryError("--abandon was given with an option for a change", hint="Use it with --store only.")
    with reporting_errors(style) as chosen:
        unreadable = None
        if report is not None:
            listing = json_lines("a report of unreadable files", ("path", "reason", "detail"))
            unreadable = Output(report, listing, force)
        require_outputs(unreadable)
        with open_store(store) as opened:
            require_not_of_archive(opened, unreadable)
            if abandon:
                write_rows([{"abandoned": reembedding.abandon_reembedding(opened)}], chosen)
                return
            with progress_bar("frames") as update:

                def tell(progress: ReembedProgress) -> None:
                    note = f"{progress.sentences} sentences, {progress.unreadable} files can't be read"
                    update(progress.frames, progress.all_frames, note)

                outcome = reembedding.reembed(
                    opened,
                    model=model,
                    device=device,
                    workers=workers,
                    drop_unreadable=drop_unreadable,
                    restart=restart,
                    on_progress=tell,
                )
        if unreadable is not None:
            rows = (neutral_values(vars(one)) for one in outcome.unreadable)
            unreadable.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        if chosen is Format.TABLE:
            say("\n".join(_summary(outcome, opened.label)))
        else:
            write_rows([_row(outcome)], chosen)
        if not outcome.switched:
            say(f"medlens: the store keeps its model, {outcome.former_model}: {_what_to_do(outcome)}", err=True)
            raise typer.Exit(3)


def _summary(report: ReembedReport, store: str) -> list[str]:
    made = f"encoded {report.frames} frames and {report.sentences} sentences in {duration(report.seconds)}"
    lines = [made + (f"; {report.kept} vectors were made before" if report.kept else "")]
    if report.unreadable:
        lines.append(f"  {len(report.unreadable)} files with {report.unreadable_frames} frames can't be read again:")
        lines += [f"    {n:6d}  {reason}" for reason, n in _by_reason(report).items()]
        lines.append("  (--report FILE lists them)")
    if report.switched:
        lines.append(f"{store} has the model {report.model}")
    if report.switched and report.left_out:
        lines.append(f"  {report.left_out} instances were left out; `medlens index` looks at their files again")
    if report.switched and report.former_labels:
        names = ", ".join(report.former_labels)
        lines.append(f"  labels of a former model are kept and say so: {names}; `medlens classify --save` renews them")
    return lines


def _what_to_do(report: ReembedReport) -> str:
    return (
        f"{len(report.unreadable)} files can't be read again. Run `medlens index` on the archive, which finds moved "
        "and changed files, then this command again: it reads only what is missing. Or leave them out with "
        "--drop-unreadable."
    )


def _row(report: ReembedReport) -> dict[str, Any]:
    return {**vars(report), "unreadable": _by_reason(report), "former_labels": list(report.former_labels)}


def _by_reason(report: ReembedReport) -> dict[str, int]:
    return dict(Counter(one.reason for one in report.unreadable).most_common())
