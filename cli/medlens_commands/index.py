"""The command `index`: read an archive into a store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands._errors import reporting_errors, usage
from cli.medlens_commands._options import (
    DEFAULT_STORE,
    DeviceOption,
    ForceOption,
    FormatOption,
    ModelOption,
    StoreOption,
    path_given,
)
from cli.medlens_output.formats import Format, write_rows
from cli.medlens_output.lines import say
from retrieval.neutral import neutral_values


def index(
    archive: Annotated[
        list[Path],
        typer.Argument(parser=path_given, metavar="ARCHIVE", help="Folders of DICOM files, or single files, to index."),
    ],
    store: StoreOption = DEFAULT_STORE,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    frames: Annotated[
        str,
        typer.Option(
            help="The frames of a multi-frame file to index: all, middle, every:N (each Nth) or max:N (at "
            "most N, evenly spaced)."
        ),
    ] = "max:16",
    workers: Annotated[
        int | None, typer.Option(min=1, help="The number of processes that decode files. Default: one per CPU core.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Also remove files from the store that are no longer in the archive.")
    ] = False,
    shard: Annotated[
        str,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Index only part I of N, such as 1/4, so that several machines can share the work. Files "
            "are divided by a hash of their paths.",
        ),
    ] = "1/1",
    readmit: Annotated[
        bool, typer.Option("--readmit", help="Index files again that `medlens delete` erased and kept out.")
    ] = False,
    descriptions: Annotated[
        bool,
        typer.Option(
            help="Whether to keep StudyDescription and SeriesDescription. Identifying words are removed from them."
        ),
    ] = True,
    report: Annotated[
        Path | None, typer.Option(help="Write the rejected files and the reasons to this file, as JSON lines.")
    ] = None,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Write progress as JSON lines to stderr, for other programs.")
    ] = False,
    group: Annotated[
        str | None, typer.Option(metavar="NAME", help="Let the members of this Unix group read the new store.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="End with exit code 3 if any file was rejected.")] = False,
    style: FormatOption = None,
    force: ForceOption = False,
) -> None:
    """Index an archive of DICOM files: read them, embed their pictures and reports, and add them to a store.

    If you run the command again, it reads only new and changed files. Several of these commands, on one or on several
    machines, can share an archive and a store: each file is read by only one of them.
    """
    from cli.medlens_output.index_report import outcome_row, summary
    from cli.medlens_output.run_log import run_log
    from indexer.output_formats import json_lines
    from indexer.outputs import Output, require_outputs
    from indexer.reading.frames import parse_policy
    from indexer.run.options import Shard
    from indexer.tasks import indexing

    with reporting_errors(style) as chosen:
        with usage(style):
            policy, part = parse_policy(frames), Shard.parse(shard)
        rejections = None
        if report is not None:
            rejections = Output(report, json_lines("a report of rejected files", ("path", "reason", "detail")), force)
        require_outputs(rejections)
        with run_log(len(archive), as_json=log_json) as log:
            outcome = indexing.index(
                archive,
                store,
                model=model,
                device=device,
                frames=policy,
                workers=workers,
                prune=prune,
                shard=part,
                readmit=readmit,
                keep_descriptions=descriptions,
                group=group,
                on_model=log.started,
                on_progress=log.update,
            )
            log.done(outcome)
        if rejections is not None:
            rows = (neutral_values(vars(rejected)) for rejected in outcome.rejected)
            rejections.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        if chosen is Format.TABLE:
            say("\n".join(summary(outcome)))
        else:
            write_rows([outcome_row(outcome)], chosen)
    if strict and outcome.rejected:
        raise typer.Exit(3)
