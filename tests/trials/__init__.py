"""Long trials: many seeded attempts at breaking medlens, and what became of each.

Whole: `make trials`. A share of a few per cent: `make test`. A trial is a function in a module of this folder, and the
decorator is all it takes to be found:

    @trial(attempts=40_000, share=0.05)
    def mutants(attempts: int, seed: int, folder: Path, tally: Tally) -> None:
        ...
        tally.contained()            # went well, or what was asked for came out unharmed
        tally.refused("not-dicom")   # ended in the error that it should end in
        tally.quarantined("guard")   # had to be stopped or set aside; all else went on
        tally.failed("a frame was encoded twice")   # got through: the trial fails

Each attempt is counted once; the same seed makes the same attempts.
"""
