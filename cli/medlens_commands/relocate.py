"""relocate: tell the store the new place of an archive."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import DEFAULT_STORE, FormatOption, StoreOption, open_store
from cli.medlens_output.formats import Format, write_rows
from cli.medlens_output.lines import say


def relocate(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Where the archive was when it was indexed.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Where it is now.")],
    store: StoreOption = DEFAULT_STORE,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Compare a sample of its files by their content first.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    style: FormatOption = None,
) -> None:
    """Tell the store that an archive is at a new place. Nothing is decoded or encoded again.

    The paths below the folder of the archive must be the same as before. `medlens index NEW` does this by itself if the
    old place is gone; it also recognises files whose paths have changed.
    """
    from dataclasses import asdict

    from indexer.tasks import relocating

    with reporting_errors(style) as chosen, open_store(store) as opened:
        done = relocating.relocate(opened, old, new, check=check, dry_run=dry_run)
        if chosen is not Format.TABLE:
            write_rows([asdict(done)], chosen)
            return
        say(f"{done.files} files {'are now known by their new place' if done.relocated else 'would be relocated'}")
        if done.looked_at:
            say(
                f"  of {done.looked_at} compared files, {done.same} are the same, {done.differing} differ, "
                f"{done.missing} are missing"
            )
        if done.differing or done.missing:
            say("  run `medlens index` on the new place to bring the store up to date")
