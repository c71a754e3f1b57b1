"""Make a failing run small: leave steps out for as long as it still fails."""

from msgspec.structs import replace

from tests.simulation.run import Options, Verdict, simulate

MAX_RUNS = 200


def shrink(options: Options) -> Verdict:
    """The verdict of the smallest run found that still breaks a promise.

    Steps are left out in ever smaller blocks (Zeller's delta debugging, without its complement step: each step draws
    its own chance, so that the others stay what they were).
    """
    best, verdict = options, simulate(options)
    block, tries = options.steps // 2, 0
    while block and tries < MAX_RUNS:
        for start in range(0, options.steps, block):
            tries += 1
            smaller = replace(best, skip=best.skip | set(range(start, start + block)))
            if smaller.skip == best.skip:
                continue
            tried = simulate(smaller)
            if not tried.is_good:
                best, verdict = smaller, tried
        block //= 2
    return verdict
