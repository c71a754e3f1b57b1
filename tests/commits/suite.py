"""What each case and each rule is held by, whatever the world stands on."""

from tests.commits.cases import Case
from tests.commits.follow import follow
from tests.commits.words import Say
from tests.commits.world import Backing, World, codes


async def commit(
    world: World, says: list[Say], workspace: str = "home", device: str = "alice's"
) -> list[tuple[str, int | None]]:
    """Look, then commit; the conflicts, none when it was accepted."""
    await world.look(workspace)
    operations = [say(world) for say in says]
    [outcome] = await world.submit(world.request(operations, workspace=workspace, device=device))
    return codes(outcome)


async def hold(case: Case, backing: Backing) -> None:
    """Play a case, and hold its sentence; a follower of the journal must come to the same tree."""
    world = await World.make(backing)
    for says in case.before:
        assert await commit(world, says, case.workspace) == []
    before = await world.tree(case.workspace)
    found = await commit(world, case.commit, case.workspace, case.device)
    after = await world.tree(case.workspace)
    if isinstance(case.expected, dict):
        assert (found, after) == ([], case.expected)
    else:
        assert (found, after) == (case.expected, before)
    await follow(world, case.workspace)
