"""The planner's table: every pair of what two people may do to one thing, and what must come of it.

For each of ada's doings at another device, which stands in the journal, there is a paragraph; for each of bob's, on this
device's disk, a line in it. The line says what has to be done until both sides rest, and what there is then:

    -        nothing: both have it already, and only the merge base learns of it
    place    the disk gets what the journal has
    commit   the journal gets what the disk has
    both     each gets something of the other

and a `!` where the two are not treated alike: they disagree, the journal's wins place, mode, time and name, and the disk's content
goes aside. Everywhere else it is the same who was first.

A `#` is a `!` where several of bob's moves close one ring: which is undone is for their ids to say.

A tree is written as `plan_scenes.shown` has it. What both have besides is left out while it is as it was; `-a/g`: it is gone, with
all that was in it. `~` is the mark of a conflict copy. All this was settled by the rules that ARCHITECTURE.md states, and never
by asking the planner:

- An edit wins over a delete, and brings back the directories that it needs, but nothing else that was in them.
- A delete wins over a mere move, a touched file, a mode.
- Place, content with its time, and mode are merged each for itself; of two the journal's wins.
- Of two contents the journal's keeps the file; the disk's goes where its editor had it, under a conflict name.
- Of two things under one name the one that stands there in the journal keeps it. Two directories that are both new there become one,
  as do a new one and one that lives for what is in it; so do two new files, and two new links, of one content.
- A ring of moves is opened by undoing the disk's.
"""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from tests.unit.agent.plan_scenes import DIRECTORY, FILE, LINK, NAME, RING, Scene


class Case(Struct, frozen=True):
    """One row.

    Attributes:
        theirs: What ada does, which the journal has.
        ours: What bob does, which the disk has.
        places: Whether anything has to be done to the disk.
        commits: Whether anything has to be told to the journal.
        is_even: Whether the same comes out when the two change places.
        is_settled: Whether the same comes out whatever the nodes' ids, and whatever is done first.
        expected: All that there is in the end on both sides.
        told: What of it the row tells.
    """

    scene: Scene
    theirs: str
    ours: str
    places: bool
    commits: bool
    is_even: bool
    is_settled: bool
    expected: frozenset[str]
    told: str

    @property
    def sentence(self) -> str:
        """What must come out, in words."""
        theirs, ours = self.scene.acts[self.theirs][0], self.scene.acts[self.ours][0]
        return f"{self.scene.thing}: ada {theirs}, bob {ours}: {self._what()}, so {self._rest()}"

    def _what(self) -> str:
        if "~" in self.told:
            return "both are kept, bob's aside"
        if not self.is_even:
            return "ada's wins where they disagree, and each gets the rest" if self.commits else "ada's wins"
        if self.places and self.commits:
            return "each gets the other's"
        if self.places or self.commits:
            return "bob gets ada's" if self.places else "ada gets bob's"
        return "both have the same"

    def _rest(self) -> str:
        return (
            ", ".join(_in_words(word) for word in self.told.split())
            if self.told != "."
            else "nothing is there"
        )


def cases() -> Iterator[Case]:
    """All rows."""
    for scene, table in (
        (FILE, FILES),
        (LINK, LINKS),
        (DIRECTORY, DIRECTORIES),
        (NAME, NAMES),
        (RING, RINGS),
    ):
        theirs = ""
        for line in table.strip().splitlines():
            if not line.startswith(" "):
                theirs = line
                continue
            ours, work, told = line.split(maxsplit=2)
            is_even, is_settled = work[-1] not in "!#", work[-1] != "#"
            work = work.rstrip("!#")
            assert work in ("-", "place", "commit", "both"), line
            yield Case(
                scene=scene,
                theirs=theirs,
                ours=ours,
                places=work in ("place", "both"),
                commits=work in ("commit", "both"),
                is_even=is_even,
                is_settled=is_settled,
                expected=_expected(scene, told),
                told=told,
            )


def _expected(scene: Scene, told: str) -> frozenset[str]:
    words = [] if told == "." else told.split()
    gone = [word[1:] for word in words if word.startswith("-")]
    here = {_path(word): word for word in words if not word.startswith("-")}
    for word in scene.scenery:
        path = _path(word)
        if not any(path == top or path.startswith(f"{top}/") for top in gone):
            here.setdefault(path, word)
    return frozenset(here.values())


def _in_words(word: str) -> str:
    if word.startswith("-"):
        return f"{word[1:]} is gone"
    path, mode, time = _path(word).replace("~", "'s copy"), word.partition(":")[2], word.partition("@")[2]
    more = (f" with mode {mode.partition('@')[0]}" if mode else "") + (f" of time {time}" if time else "")
    if "=" in word:
        return f"{path} holds {word.partition('=')[2].partition(':')[0].partition('@')[0]}{more}"
    return f"{path} leads to {word.partition('>')[2]}" if ">" in word else f"{path} is a directory{more}"


def _path(word: str) -> str:
    for mark in ("=", ">", "/:"):
        word = word.partition(mark)[0]
    return word.rstrip("/")


FILES: Final = """
leaves
  leaves           -       a/f=x
  edits            commit  a/f=z
  edits-alike      commit  a/f=xy
  touches          commit  a/f=x@12
  chmods           commit  a/f=x:755
  renames          commit  a/k=x
  renames-alike    commit  a/n=x
  recases          commit  a/F=x
  moves            commit  c/f=x
  moves-edits      commit  c/f=z
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  commit  a/f=x -b -c
  to-directory     commit  a/f/ a/f/k=zq
  to-link          commit  a/f>k
  remakes          commit  a/f=zq
  backs-up         commit  a/f=zq a/k=x
  swaps            commit  a/f=q a/g=x
edits
  leaves           place   a/f=y
  edits            both!   a/f=y a/f~=z
  edits-alike      both!   a/f=y a/f~=xy
  touches          place   a/f=y
  chmods           both    a/f=y:755
  renames          both    a/k=y
  renames-alike    both    a/n=y
  recases          both    a/F=y
  moves            both    c/f=y
  moves-edits      both!   a/f=y c/f~=z
  deletes          place   a/f=y
  deletes-parent   both    a/f=y -a/g
  deletes-targets  both    a/f=y -b -c
  to-directory     both!   a/f=y a/f~/ a/f~/k=zq
  to-link          both!   a/f=y a/f~>k
  remakes          both!   a/f=y a/f~=zq
  backs-up         both    a/f=zq a/k=y
  swaps            both    a/f=q a/g=y
edits-alike
  leaves           place   a/f=xy
  edits            both!   a/f=xy a/f~=z
  edits-alike      -       a/f=xy
  touches          place   a/f=xy
  chmods           both    a/f=xy:755
  renames          both    a/k=xy
  renames-alike    both    a/n=xy
  recases          both    a/F=xy
  moves            both    c/f=xy
  moves-edits      both!   a/f=xy c/f~=z
  deletes          place   a/f=xy
  deletes-parent   both    a/f=xy -a/g
  deletes-targets  both    a/f=xy -b -c
  to-directory     both!   a/f=xy a/f~/ a/f~/k=zq
  to-link          both!   a/f=xy a/f~>k
  remakes          both!   a/f=xy a/f~=zq
  backs-up         both    a/f=zq a/k=xy
  swaps            both    a/f=q a/g=xy
touches
  leaves           place   a/f=x@11
  edits            commit  a/f=z
  edits-alike      commit  a/f=xy
  touches          place!  a/f=x@11
  chmods           both    a/f=x:755@11
  renames          both    a/k=x@11
  renames-alike    both    a/n=x@11
  recases          both    a/F=x@11
  moves            both    c/f=x@11
  moves-edits      commit  c/f=z
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    a/f=x@11 -b -c
  to-directory     commit  a/f/ a/f/k=zq
  to-link          commit  a/f>k
  remakes          commit  a/f=zq
  backs-up         both    a/f=zq a/k=x@11
  swaps            both    a/f=q a/g=x@11
chmods
  leaves           place   a/f=x:600
  edits            both    a/f=z:600
  edits-alike      both    a/f=xy:600
  touches          both    a/f=x:600@12
  chmods           place!  a/f=x:600
  renames          both    a/k=x:600
  renames-alike    both    a/n=x:600
  recases          both    a/F=x:600
  moves            both    c/f=x:600
  moves-edits      both    c/f=z:600
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    a/f=x:600 -b -c
  to-directory     commit  a/f/ a/f/k=zq
  to-link          commit  a/f>k
  remakes          commit  a/f=zq
  backs-up         both    a/f=zq a/k=x:600
  swaps            both    a/f=q a/g=x:600
renames
  leaves           place   a/j=x
  edits            both    a/j=z
  edits-alike      both    a/j=xy
  touches          both    a/j=x@12
  chmods           both    a/j=x:755
  renames          place!  a/j=x
  renames-alike    place!  a/j=x
  recases          place!  a/j=x
  moves            place!  a/j=x
  moves-edits      both!   a/j=z
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    a/j=x -b -c
  to-directory     commit  a/f/ a/f/k=zq
  to-link          commit  a/f>k
  remakes          commit  a/f=zq
  backs-up         both!   a/f=zq a/j=x
  swaps            both!   a/f=q a/j=x -a/g
renames-alike
  leaves           place   a/n=x
  edits            both    a/n=z
  edits-alike      both    a/n=xy
  touches          both    a/n=x@12
  chmods           both    a/n=x:755
  renames          place!  a/n=x
  renames-alike    -       a/n=x
  recases          place!  a/n=x
  moves            place!  a/n=x
  moves-edits      both!   a/n=z
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    a/n=x -b -c
  to-directory     commit  a/f/ a/f/k=zq
  to-link          commit  a/f>k
  remakes          commit  a/f=zq
  backs-up         both!   a/f=zq a/n=x
  swaps            both!   a/f=q a/n=x -a/g
recases
  leaves           place   a/F=x
  edits            both    a/F=z
  edits-alike      both    a/F=xy
  touches          both    a/F=x@12
  chmods           both    a/F=x:755
  renames          place!  a/F=x
  renames-alike    place!  a/F=x
  recases          -       a/F=x
  moves            place!  a/F=x
  moves-edits      both!   a/F=z
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    a/F=x -b -c
  to-directory     commit  a/f/ a/f/k=zq
  to-link          commit  a/f>k
  remakes          commit  a/f=zq
  backs-up         both!   a/F=x a/f=zq
  swaps            both!   a/F=x a/f=q -a/g
moves
  leaves           place   b/f=x
  edits            both    b/f=z
  edits-alike      both    b/f=xy
  touches          both    b/f=x@12
  chmods           both    b/f=x:755
  renames          place!  b/f=x
  renames-alike    place!  b/f=x
  recases          place!  b/f=x
  moves            place!  b/f=x
  moves-edits      both!   b/f=z
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    b/f=x -c
  to-directory     commit  a/f/ a/f/k=zq
  to-link          commit  a/f>k
  remakes          commit  a/f=zq
  backs-up         both!   a/f=zq b/f=x
  swaps            both!   a/f=q b/f=x -a/g
moves-edits
  leaves           place   b/f=y
  edits            both!   a/f~=z b/f=y
  edits-alike      both!   a/f~=xy b/f=y
  touches          place   b/f=y
  chmods           both    b/f=y:755
  renames          place!  b/f=y
  renames-alike    place!  b/f=y
  recases          place!  b/f=y
  moves            place!  b/f=y
  moves-edits      both!   b/f=y c/f~=z
  deletes          place   b/f=y
  deletes-parent   both    b/f=y -a
  deletes-targets  both    b/f=y -c
  to-directory     both    a/f/ a/f/k=zq b/f=y
  to-link          both    a/f>k b/f=y
  remakes          both    a/f=zq b/f=y
  backs-up         both!   a/f=zq b/f=y
  swaps            both!   a/f=q b/f=y -a/g
deletes
  leaves           place   .
  edits            commit  a/f=z
  edits-alike      commit  a/f=xy
  touches          place   .
  chmods           place   .
  renames          place   .
  renames-alike    place   .
  recases          place   .
  moves            place   .
  moves-edits      commit  c/f=z
  deletes          -       .
  deletes-parent   commit  -a
  deletes-targets  both    -b -c
  to-directory     commit  a/f/ a/f/k=zq
  to-link          commit  a/f>k
  remakes          commit  a/f=zq
  backs-up         both    a/f=zq
  swaps            both    a/f=q -a/g
deletes-parent
  leaves           place   -a
  edits            both    a/f=z -a/g
  edits-alike      both    a/f=xy -a/g
  touches          place   -a
  chmods           place   -a
  renames          place   -a
  renames-alike    place   -a
  recases          place   -a
  moves            place   -a
  moves-edits      both    c/f=z -a
  deletes          place   -a
  deletes-parent   -       -a
  deletes-targets  both    -a -b -c
  to-directory     both    a/f/ a/f/k=zq -a/g
  to-link          both    a/f>k -a/g
  remakes          both    a/f=zq -a/g
  backs-up         both    a/f=zq -a/g
  swaps            place   -a
deletes-targets
  leaves           place   a/f=x -b -c
  edits            both    a/f=z -b -c
  edits-alike      both    a/f=xy -b -c
  touches          both    a/f=x@12 -b -c
  chmods           both    a/f=x:755 -b -c
  renames          both    a/k=x -b -c
  renames-alike    both    a/n=x -b -c
  recases          both    a/F=x -b -c
  moves            both    c/f=x -b
  moves-edits      both    c/f=z -b
  deletes          both    -b -c
  deletes-parent   both    -a -b -c
  deletes-targets  -       a/f=x -b -c
  to-directory     both    a/f/ a/f/k=zq -b -c
  to-link          both    a/f>k -b -c
  remakes          both    a/f=zq -b -c
  backs-up         both    a/f=zq a/k=x -b -c
  swaps            both    a/f=q a/g=x -b -c
to-directory
  leaves           place   a/f/ a/f/j=yq
  edits            both!   a/f/ a/f/j=yq a/f~=z
  edits-alike      both!   a/f/ a/f/j=yq a/f~=xy
  touches          place   a/f/ a/f/j=yq
  chmods           place   a/f/ a/f/j=yq
  renames          place   a/f/ a/f/j=yq
  renames-alike    place   a/f/ a/f/j=yq
  recases          place   a/f/ a/f/j=yq
  moves            place   a/f/ a/f/j=yq
  moves-edits      both    a/f/ a/f/j=yq c/f=z
  deletes          place   a/f/ a/f/j=yq
  deletes-parent   both    a/f/ a/f/j=yq -a/g
  deletes-targets  both    a/f/ a/f/j=yq -b -c
  to-directory     both    a/f/ a/f/j=yq a/f/k=zq
  to-link          both!   a/f/ a/f/j=yq a/f~>k
  remakes          both!   a/f/ a/f/j=yq a/f~=zq
  backs-up         both!   a/f/ a/f/j=yq a/f~=zq
  swaps            both!   a/f/ a/f/j=yq a/f~=q -a/g
to-link
  leaves           place   a/f>j
  edits            both!   a/f>j a/f~=z
  edits-alike      both!   a/f>j a/f~=xy
  touches          place   a/f>j
  chmods           place   a/f>j
  renames          place   a/f>j
  renames-alike    place   a/f>j
  recases          place   a/f>j
  moves            place   a/f>j
  moves-edits      both    a/f>j c/f=z
  deletes          place   a/f>j
  deletes-parent   both    a/f>j -a/g
  deletes-targets  both    a/f>j -b -c
  to-directory     both!   a/f>j a/f~/ a/f~/k=zq
  to-link          both!   a/f>j a/f~>k
  remakes          both!   a/f>j a/f~=zq
  backs-up         both!   a/f>j a/f~=zq
  swaps            both!   a/f>j a/f~=q -a/g
remakes
  leaves           place   a/f=yq
  edits            both!   a/f=yq a/f~=z
  edits-alike      both!   a/f=yq a/f~=xy
  touches          place   a/f=yq
  chmods           place   a/f=yq
  renames          place   a/f=yq
  renames-alike    place   a/f=yq
  recases          place   a/f=yq
  moves            place   a/f=yq
  moves-edits      both    a/f=yq c/f=z
  deletes          place   a/f=yq
  deletes-parent   both    a/f=yq -a/g
  deletes-targets  both    a/f=yq -b -c
  to-directory     both!   a/f=yq a/f~/ a/f~/k=zq
  to-link          both!   a/f=yq a/f~>k
  remakes          both!   a/f=yq a/f~=zq
  backs-up         both!   a/f=yq a/f~=zq
  swaps            both!   a/f=yq a/f~=q -a/g
backs-up
  leaves           place   a/f=yq a/j=x
  edits            both    a/f=yq a/j=z
  edits-alike      both    a/f=yq a/j=xy
  touches          both    a/f=yq a/j=x@12
  chmods           both    a/f=yq a/j=x:755
  renames          place!  a/f=yq a/j=x
  renames-alike    place!  a/f=yq a/j=x
  recases          place!  a/f=yq a/j=x
  moves            place!  a/f=yq a/j=x
  moves-edits      both!   a/f=yq a/j=z
  deletes          both    a/f=yq
  deletes-parent   both    a/f=yq -a/g
  deletes-targets  both    a/f=yq a/j=x -b -c
  to-directory     both!   a/f=yq a/f~/ a/f~/k=zq
  to-link          both!   a/f=yq a/f~>k
  remakes          both!   a/f=yq a/f~=zq
  backs-up         both!   a/f=yq a/f~=zq a/j=x
  swaps            both!   a/f=yq a/f~=q a/j=x -a/g
swaps
  leaves           place   a/f=q a/g=x
  edits            both    a/f=q a/g=z
  edits-alike      both    a/f=q a/g=xy
  touches          both    a/f=q a/g=x@12
  chmods           both    a/f=q a/g=x:755
  renames          place!  a/f=q a/g=x
  renames-alike    place!  a/f=q a/g=x
  recases          place!  a/f=q a/g=x
  moves            place!  a/f=q a/g=x
  moves-edits      both!   a/f=q a/g=z
  deletes          both    a/f=q -a/g
  deletes-parent   commit  -a
  deletes-targets  both    a/f=q a/g=x -b -c
  to-directory     both!   a/f=q a/f~/ a/f~/k=zq -a/g
  to-link          both!   a/f=q a/f~>k -a/g
  remakes          both!   a/f=q a/f~=zq -a/g
  backs-up         both!   a/f=q a/f~=zq a/g=x
  swaps            -       a/f=q a/g=x
"""

LINKS: Final = """
leaves
  leaves           -       a/l>o
  leads            commit  a/l>k
  leads-alike      commit  a/l>n
  renames          commit  a/k>o
  renames-alike    commit  a/n>o
  recases          commit  a/L>o
  moves            commit  c/l>o
  moves-leads      commit  c/l>k
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  commit  a/l>o -b -c
  to-file          commit  a/l=zq
  to-directory     commit  a/l/ a/l/k=zq
  remakes          commit  a/l>k
  swaps            commit  a/g>o a/l=q
leads
  leaves           place   a/l>j
  leads            both!   a/l>j a/l~>k
  leads-alike      both!   a/l>j a/l~>n
  renames          both    a/k>j
  renames-alike    both    a/n>j
  recases          both    a/L>j
  moves            both    c/l>j
  moves-leads      both!   a/l>j c/l~>k
  deletes          place   a/l>j
  deletes-parent   both    a/l>j -a/g
  deletes-targets  both    a/l>j -b -c
  to-file          both!   a/l>j a/l~=zq
  to-directory     both!   a/l>j a/l~/ a/l~/k=zq
  remakes          both!   a/l>j a/l~>k
  swaps            both    a/g>j a/l=q
leads-alike
  leaves           place   a/l>n
  leads            both!   a/l>n a/l~>k
  leads-alike      -       a/l>n
  renames          both    a/k>n
  renames-alike    both    a/n>n
  recases          both    a/L>n
  moves            both    c/l>n
  moves-leads      both!   a/l>n c/l~>k
  deletes          place   a/l>n
  deletes-parent   both    a/l>n -a/g
  deletes-targets  both    a/l>n -b -c
  to-file          both!   a/l>n a/l~=zq
  to-directory     both!   a/l>n a/l~/ a/l~/k=zq
  remakes          both!   a/l>n a/l~>k
  swaps            both    a/g>n a/l=q
renames
  leaves           place   a/j>o
  leads            both    a/j>k
  leads-alike      both    a/j>n
  renames          place!  a/j>o
  renames-alike    place!  a/j>o
  recases          place!  a/j>o
  moves            place!  a/j>o
  moves-leads      both!   a/j>k
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    a/j>o -b -c
  to-file          commit  a/l=zq
  to-directory     commit  a/l/ a/l/k=zq
  remakes          commit  a/l>k
  swaps            both!   a/j>o a/l=q -a/g
renames-alike
  leaves           place   a/n>o
  leads            both    a/n>k
  leads-alike      both    a/n>n
  renames          place!  a/n>o
  renames-alike    -       a/n>o
  recases          place!  a/n>o
  moves            place!  a/n>o
  moves-leads      both!   a/n>k
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    a/n>o -b -c
  to-file          commit  a/l=zq
  to-directory     commit  a/l/ a/l/k=zq
  remakes          commit  a/l>k
  swaps            both!   a/l=q a/n>o -a/g
recases
  leaves           place   a/L>o
  leads            both    a/L>k
  leads-alike      both    a/L>n
  renames          place!  a/L>o
  renames-alike    place!  a/L>o
  recases          -       a/L>o
  moves            place!  a/L>o
  moves-leads      both!   a/L>k
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    a/L>o -b -c
  to-file          commit  a/l=zq
  to-directory     commit  a/l/ a/l/k=zq
  remakes          commit  a/l>k
  swaps            both!   a/L>o a/l=q -a/g
moves
  leaves           place   b/l>o
  leads            both    b/l>k
  leads-alike      both    b/l>n
  renames          place!  b/l>o
  renames-alike    place!  b/l>o
  recases          place!  b/l>o
  moves            place!  b/l>o
  moves-leads      both!   b/l>k
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    b/l>o -c
  to-file          commit  a/l=zq
  to-directory     commit  a/l/ a/l/k=zq
  remakes          commit  a/l>k
  swaps            both!   a/l=q b/l>o -a/g
moves-leads
  leaves           place   b/l>j
  leads            both!   a/l~>k b/l>j
  leads-alike      both!   a/l~>n b/l>j
  renames          place!  b/l>j
  renames-alike    place!  b/l>j
  recases          place!  b/l>j
  moves            place!  b/l>j
  moves-leads      both!   b/l>j c/l~>k
  deletes          place   b/l>j
  deletes-parent   both    b/l>j -a
  deletes-targets  both    b/l>j -c
  to-file          both    a/l=zq b/l>j
  to-directory     both    a/l/ a/l/k=zq b/l>j
  remakes          both    a/l>k b/l>j
  swaps            both!   a/l=q b/l>j -a/g
deletes
  leaves           place   .
  leads            commit  a/l>k
  leads-alike      commit  a/l>n
  renames          place   .
  renames-alike    place   .
  recases          place   .
  moves            place   .
  moves-leads      commit  c/l>k
  deletes          -       .
  deletes-parent   commit  -a
  deletes-targets  both    -b -c
  to-file          commit  a/l=zq
  to-directory     commit  a/l/ a/l/k=zq
  remakes          commit  a/l>k
  swaps            both    a/l=q -a/g
deletes-parent
  leaves           place   -a
  leads            both    a/l>k -a/g
  leads-alike      both    a/l>n -a/g
  renames          place   -a
  renames-alike    place   -a
  recases          place   -a
  moves            place   -a
  moves-leads      both    c/l>k -a
  deletes          place   -a
  deletes-parent   -       -a
  deletes-targets  both    -a -b -c
  to-file          both    a/l=zq -a/g
  to-directory     both    a/l/ a/l/k=zq -a/g
  remakes          both    a/l>k -a/g
  swaps            place   -a
deletes-targets
  leaves           place   a/l>o -b -c
  leads            both    a/l>k -b -c
  leads-alike      both    a/l>n -b -c
  renames          both    a/k>o -b -c
  renames-alike    both    a/n>o -b -c
  recases          both    a/L>o -b -c
  moves            both    c/l>o -b
  moves-leads      both    c/l>k -b
  deletes          both    -b -c
  deletes-parent   both    -a -b -c
  deletes-targets  -       a/l>o -b -c
  to-file          both    a/l=zq -b -c
  to-directory     both    a/l/ a/l/k=zq -b -c
  remakes          both    a/l>k -b -c
  swaps            both    a/g>o a/l=q -b -c
to-file
  leaves           place   a/l=yq
  leads            both!   a/l=yq a/l~>k
  leads-alike      both!   a/l=yq a/l~>n
  renames          place   a/l=yq
  renames-alike    place   a/l=yq
  recases          place   a/l=yq
  moves            place   a/l=yq
  moves-leads      both    a/l=yq c/l>k
  deletes          place   a/l=yq
  deletes-parent   both    a/l=yq -a/g
  deletes-targets  both    a/l=yq -b -c
  to-file          both!   a/l=yq a/l~=zq
  to-directory     both!   a/l=yq a/l~/ a/l~/k=zq
  remakes          both!   a/l=yq a/l~>k
  swaps            both!   a/l=yq a/l~=q -a/g
to-directory
  leaves           place   a/l/ a/l/j=yq
  leads            both!   a/l/ a/l/j=yq a/l~>k
  leads-alike      both!   a/l/ a/l/j=yq a/l~>n
  renames          place   a/l/ a/l/j=yq
  renames-alike    place   a/l/ a/l/j=yq
  recases          place   a/l/ a/l/j=yq
  moves            place   a/l/ a/l/j=yq
  moves-leads      both    a/l/ a/l/j=yq c/l>k
  deletes          place   a/l/ a/l/j=yq
  deletes-parent   both    a/l/ a/l/j=yq -a/g
  deletes-targets  both    a/l/ a/l/j=yq -b -c
  to-file          both!   a/l/ a/l/j=yq a/l~=zq
  to-directory     both    a/l/ a/l/j=yq a/l/k=zq
  remakes          both!   a/l/ a/l/j=yq a/l~>k
  swaps            both!   a/l/ a/l/j=yq a/l~=q -a/g
remakes
  leaves           place   a/l>j
  leads            both!   a/l>j a/l~>k
  leads-alike      both!   a/l>j a/l~>n
  renames          place   a/l>j
  renames-alike    place   a/l>j
  recases          place   a/l>j
  moves            place   a/l>j
  moves-leads      both    a/l>j c/l>k
  deletes          place   a/l>j
  deletes-parent   both    a/l>j -a/g
  deletes-targets  both    a/l>j -b -c
  to-file          both!   a/l>j a/l~=zq
  to-directory     both!   a/l>j a/l~/ a/l~/k=zq
  remakes          both!   a/l>j a/l~>k
  swaps            both!   a/l>j a/l~=q -a/g
swaps
  leaves           place   a/g>o a/l=q
  leads            both    a/g>k a/l=q
  leads-alike      both    a/g>n a/l=q
  renames          place!  a/g>o a/l=q
  renames-alike    place!  a/g>o a/l=q
  recases          place!  a/g>o a/l=q
  moves            place!  a/g>o a/l=q
  moves-leads      both!   a/g>k a/l=q
  deletes          both    a/l=q -a/g
  deletes-parent   commit  -a
  deletes-targets  both    a/g>o a/l=q -b -c
  to-file          both!   a/l=q a/l~=zq -a/g
  to-directory     both!   a/l=q a/l~/ a/l~/k=zq -a/g
  remakes          both!   a/l=q a/l~>k -a/g
  swaps            -       a/g>o a/l=q
"""

DIRECTORIES: Final = """
leaves
  leaves           -       a/d/ a/d/f=x
  chmods           commit  a/d/:750 a/d/f=x
  renames          commit  a/k/ a/k/f=x
  renames-alike    commit  a/n/ a/n/f=x
  recases          commit  a/D/ a/D/f=x
  moves            commit  c/d/ c/d/f=x
  fills            commit  a/d/ a/d/f=x a/d/k=zq
  fills-alike      commit  a/d/ a/d/f=x a/d/n=xy
  edits-inside     commit  a/d/ a/d/f=z
  empties          commit  a/d/
  takes-out        commit  a/d/ c/f=x
  moves-in         commit  a/d/ a/d/f=x a/d/g=q -a/g
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  commit  a/d/ a/d/f=x -b -c
  to-file          commit  a/d=zq
  to-link          commit  a/d>k
  remakes          commit  a/d/ a/d/k=zq
  swaps            commit  a/d/ a/d/h=xyz a/e/f=x -a/e/h
  nests            commit  a/e/d/ a/e/d/f=x
  swallows         commit  a/d/ a/d/e/ a/d/e/h=xyz a/d/f=x -a/e
chmods
  leaves           place   a/d/:700 a/d/f=x
  chmods           place!  a/d/:700 a/d/f=x
  renames          both    a/k/:700 a/k/f=x
  renames-alike    both    a/n/:700 a/n/f=x
  recases          both    a/D/:700 a/D/f=x
  moves            both    c/d/:700 c/d/f=x
  fills            both    a/d/:700 a/d/f=x a/d/k=zq
  fills-alike      both    a/d/:700 a/d/f=x a/d/n=xy
  edits-inside     both    a/d/:700 a/d/f=z
  empties          both    a/d/:700
  takes-out        both    a/d/:700 c/f=x
  moves-in         both    a/d/:700 a/d/f=x a/d/g=q -a/g
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    a/d/:700 a/d/f=x -b -c
  to-file          commit  a/d=zq
  to-link          commit  a/d>k
  remakes          commit  a/d/ a/d/k=zq
  swaps            both    a/d/ a/d/h=xyz a/e/:700 a/e/f=x -a/e/h
  nests            both    a/e/d/:700 a/e/d/f=x
  swallows         both    a/d/:700 a/d/e/ a/d/e/h=xyz a/d/f=x -a/e
renames
  leaves           place   a/j/ a/j/f=x
  chmods           both    a/j/:750 a/j/f=x
  renames          place!  a/j/ a/j/f=x
  renames-alike    place!  a/j/ a/j/f=x
  recases          place!  a/j/ a/j/f=x
  moves            place!  a/j/ a/j/f=x
  fills            both    a/j/ a/j/f=x a/j/k=zq
  fills-alike      both    a/j/ a/j/f=x a/j/n=xy
  edits-inside     both    a/j/ a/j/f=z
  empties          both    a/j/
  takes-out        both    a/j/ c/f=x
  moves-in         both    a/j/ a/j/f=x a/j/g=q -a/g
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    a/j/ a/j/f=x -b -c
  to-file          commit  a/d=zq
  to-link          commit  a/d>k
  remakes          commit  a/d/ a/d/k=zq
  swaps            both!   a/d/ a/d/h=xyz a/j/ a/j/f=x -a/e
  nests            place!  a/j/ a/j/f=x
  swallows         both    a/j/ a/j/e/ a/j/e/h=xyz a/j/f=x -a/e
renames-alike
  leaves           place   a/n/ a/n/f=x
  chmods           both    a/n/:750 a/n/f=x
  renames          place!  a/n/ a/n/f=x
  renames-alike    -       a/n/ a/n/f=x
  recases          place!  a/n/ a/n/f=x
  moves            place!  a/n/ a/n/f=x
  fills            both    a/n/ a/n/f=x a/n/k=zq
  fills-alike      both    a/n/ a/n/f=x a/n/n=xy
  edits-inside     both    a/n/ a/n/f=z
  empties          both    a/n/
  takes-out        both    a/n/ c/f=x
  moves-in         both    a/n/ a/n/f=x a/n/g=q -a/g
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    a/n/ a/n/f=x -b -c
  to-file          commit  a/d=zq
  to-link          commit  a/d>k
  remakes          commit  a/d/ a/d/k=zq
  swaps            both!   a/d/ a/d/h=xyz a/n/ a/n/f=x -a/e
  nests            place!  a/n/ a/n/f=x
  swallows         both    a/n/ a/n/e/ a/n/e/h=xyz a/n/f=x -a/e
recases
  leaves           place   a/D/ a/D/f=x
  chmods           both    a/D/:750 a/D/f=x
  renames          place!  a/D/ a/D/f=x
  renames-alike    place!  a/D/ a/D/f=x
  recases          -       a/D/ a/D/f=x
  moves            place!  a/D/ a/D/f=x
  fills            both    a/D/ a/D/f=x a/D/k=zq
  fills-alike      both    a/D/ a/D/f=x a/D/n=xy
  edits-inside     both    a/D/ a/D/f=z
  empties          both    a/D/
  takes-out        both    a/D/ c/f=x
  moves-in         both    a/D/ a/D/f=x a/D/g=q -a/g
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    a/D/ a/D/f=x -b -c
  to-file          commit  a/d=zq
  to-link          commit  a/d>k
  remakes          commit  a/d/ a/d/k=zq
  swaps            both!   a/D/ a/D/f=x a/d/ a/d/h=xyz -a/e
  nests            place!  a/D/ a/D/f=x
  swallows         both    a/D/ a/D/e/ a/D/e/h=xyz a/D/f=x -a/e
moves
  leaves           place   b/d/ b/d/f=x
  chmods           both    b/d/:750 b/d/f=x
  renames          place!  b/d/ b/d/f=x
  renames-alike    place!  b/d/ b/d/f=x
  recases          place!  b/d/ b/d/f=x
  moves            place!  b/d/ b/d/f=x
  fills            both    b/d/ b/d/f=x b/d/k=zq
  fills-alike      both    b/d/ b/d/f=x b/d/n=xy
  edits-inside     both    b/d/ b/d/f=z
  empties          both    b/d/
  takes-out        both    b/d/ c/f=x
  moves-in         both    b/d/ b/d/f=x b/d/g=q -a/g
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    b/d/ b/d/f=x -c
  to-file          commit  a/d=zq
  to-link          commit  a/d>k
  remakes          commit  a/d/ a/d/k=zq
  swaps            both!   a/d/ a/d/h=xyz b/d/ b/d/f=x -a/e
  nests            place!  b/d/ b/d/f=x
  swallows         both    b/d/ b/d/e/ b/d/e/h=xyz b/d/f=x -a/e
fills
  leaves           place   a/d/ a/d/f=x a/d/j=yq
  chmods           both    a/d/:750 a/d/f=x a/d/j=yq
  renames          both    a/k/ a/k/f=x a/k/j=yq
  renames-alike    both    a/n/ a/n/f=x a/n/j=yq
  recases          both    a/D/ a/D/f=x a/D/j=yq
  moves            both    c/d/ c/d/f=x c/d/j=yq
  fills            both    a/d/ a/d/f=x a/d/j=yq a/d/k=zq
  fills-alike      both    a/d/ a/d/f=x a/d/j=yq a/d/n=xy
  edits-inside     both    a/d/ a/d/f=z a/d/j=yq
  empties          both    a/d/ a/d/j=yq
  takes-out        both    a/d/ a/d/j=yq c/f=x
  moves-in         both    a/d/ a/d/f=x a/d/g=q a/d/j=yq -a/g
  deletes          both    a/d/ a/d/j=yq
  deletes-parent   both    a/d/ a/d/j=yq -a/e -a/g
  deletes-targets  both    a/d/ a/d/f=x a/d/j=yq -b -c
  to-file          both!   a/d/ a/d/j=yq a/d~=zq
  to-link          both!   a/d/ a/d/j=yq a/d~>k
  remakes          both    a/d/ a/d/j=yq a/d/k=zq
  swaps            both    a/d/ a/d/h=xyz a/e/f=x a/e/j=yq -a/e/h
  nests            both    a/e/d/ a/e/d/f=x a/e/d/j=yq
  swallows         both    a/d/ a/d/e/ a/d/e/h=xyz a/d/f=x a/d/j=yq -a/e
fills-alike
  leaves           place   a/d/ a/d/f=x a/d/n=xy
  chmods           both    a/d/:750 a/d/f=x a/d/n=xy
  renames          both    a/k/ a/k/f=x a/k/n=xy
  renames-alike    both    a/n/ a/n/f=x a/n/n=xy
  recases          both    a/D/ a/D/f=x a/D/n=xy
  moves            both    c/d/ c/d/f=x c/d/n=xy
  fills            both    a/d/ a/d/f=x a/d/k=zq a/d/n=xy
  fills-alike      -       a/d/ a/d/f=x a/d/n=xy
  edits-inside     both    a/d/ a/d/f=z a/d/n=xy
  empties          both    a/d/ a/d/n=xy
  takes-out        both    a/d/ a/d/n=xy c/f=x
  moves-in         both    a/d/ a/d/f=x a/d/g=q a/d/n=xy -a/g
  deletes          both    a/d/ a/d/n=xy
  deletes-parent   both    a/d/ a/d/n=xy -a/e -a/g
  deletes-targets  both    a/d/ a/d/f=x a/d/n=xy -b -c
  to-file          both!   a/d/ a/d/n=xy a/d~=zq
  to-link          both!   a/d/ a/d/n=xy a/d~>k
  remakes          both    a/d/ a/d/k=zq a/d/n=xy
  swaps            both    a/d/ a/d/h=xyz a/e/f=x a/e/n=xy -a/e/h
  nests            both    a/e/d/ a/e/d/f=x a/e/d/n=xy
  swallows         both    a/d/ a/d/e/ a/d/e/h=xyz a/d/f=x a/d/n=xy -a/e
edits-inside
  leaves           place   a/d/ a/d/f=y
  chmods           both    a/d/:750 a/d/f=y
  renames          both    a/k/ a/k/f=y
  renames-alike    both    a/n/ a/n/f=y
  recases          both    a/D/ a/D/f=y
  moves            both    c/d/ c/d/f=y
  fills            both    a/d/ a/d/f=y a/d/k=zq
  fills-alike      both    a/d/ a/d/f=y a/d/n=xy
  edits-inside     both!   a/d/ a/d/f=y a/d/f~=z
  empties          place   a/d/ a/d/f=y
  takes-out        both    a/d/ c/f=y
  moves-in         both    a/d/ a/d/f=y a/d/g=q -a/g
  deletes          place   a/d/ a/d/f=y
  deletes-parent   both    a/d/ a/d/f=y -a/e -a/g
  deletes-targets  both    a/d/ a/d/f=y -b -c
  to-file          both!   a/d/ a/d/f=y a/d~=zq
  to-link          both!   a/d/ a/d/f=y a/d~>k
  remakes          both    a/d/ a/d/f=y a/d/k=zq
  swaps            both    a/d/ a/d/h=xyz a/e/f=y -a/e/h
  nests            both    a/e/d/ a/e/d/f=y
  swallows         both    a/d/ a/d/e/ a/d/e/h=xyz a/d/f=y -a/e
empties
  leaves           place   a/d/
  chmods           both    a/d/:750
  renames          both    a/k/
  renames-alike    both    a/n/
  recases          both    a/D/
  moves            both    c/d/
  fills            both    a/d/ a/d/k=zq
  fills-alike      both    a/d/ a/d/n=xy
  edits-inside     commit  a/d/ a/d/f=z
  empties          -       a/d/
  takes-out        place   a/d/
  moves-in         both    a/d/ a/d/g=q -a/g
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    a/d/ -b -c
  to-file          commit  a/d=zq
  to-link          commit  a/d>k
  remakes          commit  a/d/ a/d/k=zq
  swaps            both    a/d/ a/d/h=xyz -a/e/h
  nests            both    a/e/d/
  swallows         both    a/d/ a/d/e/ a/d/e/h=xyz -a/e
takes-out
  leaves           place   a/d/ b/f=x
  chmods           both    a/d/:750 b/f=x
  renames          both    a/k/ b/f=x
  renames-alike    both    a/n/ b/f=x
  recases          both    a/D/ b/f=x
  moves            both    b/f=x c/d/
  fills            both    a/d/ a/d/k=zq b/f=x
  fills-alike      both    a/d/ a/d/n=xy b/f=x
  edits-inside     both    a/d/ b/f=z
  empties          commit  a/d/
  takes-out        place!  a/d/ b/f=x
  moves-in         both    a/d/ a/d/g=q b/f=x -a/g
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    a/d/ b/f=x -c
  to-file          commit  a/d=zq
  to-link          commit  a/d>k
  remakes          commit  a/d/ a/d/k=zq
  swaps            both    a/d/ a/d/h=xyz b/f=x -a/e/h
  nests            both    a/e/d/ b/f=x
  swallows         both    a/d/ a/d/e/ a/d/e/h=xyz b/f=x -a/e
moves-in
  leaves           place   a/d/ a/d/f=x a/d/g=q -a/g
  chmods           both    a/d/:750 a/d/f=x a/d/g=q -a/g
  renames          both    a/k/ a/k/f=x a/k/g=q -a/g
  renames-alike    both    a/n/ a/n/f=x a/n/g=q -a/g
  recases          both    a/D/ a/D/f=x a/D/g=q -a/g
  moves            both    c/d/ c/d/f=x c/d/g=q -a/g
  fills            both    a/d/ a/d/f=x a/d/g=q a/d/k=zq -a/g
  fills-alike      both    a/d/ a/d/f=x a/d/g=q a/d/n=xy -a/g
  edits-inside     both    a/d/ a/d/f=z a/d/g=q -a/g
  empties          both    a/d/ a/d/g=q -a/g
  takes-out        both    a/d/ a/d/g=q c/f=x -a/g
  moves-in         -       a/d/ a/d/f=x a/d/g=q -a/g
  deletes          both    a/d/ a/d/g=q -a/g
  deletes-parent   commit  -a
  deletes-targets  both    a/d/ a/d/f=x a/d/g=q -a/g -b -c
  to-file          both!   a/d/ a/d/g=q a/d~=zq -a/g
  to-link          both!   a/d/ a/d/g=q a/d~>k -a/g
  remakes          both    a/d/ a/d/g=q a/d/k=zq -a/g
  swaps            both    a/d/ a/d/h=xyz a/e/f=x a/e/g=q -a/e/h -a/g
  nests            both    a/e/d/ a/e/d/f=x a/e/d/g=q -a/g
  swallows         both    a/d/ a/d/e/ a/d/e/h=xyz a/d/f=x a/d/g=q -a/e -a/g
deletes
  leaves           place   .
  chmods           place   .
  renames          place   .
  renames-alike    place   .
  recases          place   .
  moves            place   .
  fills            both    a/d/ a/d/k=zq
  fills-alike      both    a/d/ a/d/n=xy
  edits-inside     commit  a/d/ a/d/f=z
  empties          place   .
  takes-out        place   .
  moves-in         both    a/d/ a/d/g=q -a/g
  deletes          -       .
  deletes-parent   commit  -a
  deletes-targets  both    -b -c
  to-file          commit  a/d=zq
  to-link          commit  a/d>k
  remakes          commit  a/d/ a/d/k=zq
  swaps            both    a/d/ a/d/h=xyz -a/e
  nests            place   .
  swallows         both    a/d/ a/d/e/ a/d/e/h=xyz -a/e
deletes-parent
  leaves           place   -a
  chmods           place   -a
  renames          place   -a
  renames-alike    place   -a
  recases          place   -a
  moves            place   -a
  fills            both    a/d/ a/d/k=zq -a/e -a/g
  fills-alike      both    a/d/ a/d/n=xy -a/e -a/g
  edits-inside     both    a/d/ a/d/f=z -a/e -a/g
  empties          place   -a
  takes-out        place   -a
  moves-in         place   -a
  deletes          place   -a
  deletes-parent   -       -a
  deletes-targets  both    -a -b -c
  to-file          both    a/d=zq -a/e -a/g
  to-link          both    a/d>k -a/e -a/g
  remakes          both    a/d/ a/d/k=zq -a/e -a/g
  swaps            place   -a
  nests            place   -a
  swallows         place   -a
deletes-targets
  leaves           place   a/d/ a/d/f=x -b -c
  chmods           both    a/d/:750 a/d/f=x -b -c
  renames          both    a/k/ a/k/f=x -b -c
  renames-alike    both    a/n/ a/n/f=x -b -c
  recases          both    a/D/ a/D/f=x -b -c
  moves            both    c/d/ c/d/f=x -b
  fills            both    a/d/ a/d/f=x a/d/k=zq -b -c
  fills-alike      both    a/d/ a/d/f=x a/d/n=xy -b -c
  edits-inside     both    a/d/ a/d/f=z -b -c
  empties          both    a/d/ -b -c
  takes-out        both    a/d/ c/f=x -b
  moves-in         both    a/d/ a/d/f=x a/d/g=q -a/g -b -c
  deletes          both    -b -c
  deletes-parent   both    -a -b -c
  deletes-targets  -       a/d/ a/d/f=x -b -c
  to-file          both    a/d=zq -b -c
  to-link          both    a/d>k -b -c
  remakes          both    a/d/ a/d/k=zq -b -c
  swaps            both    a/d/ a/d/h=xyz a/e/f=x -a/e/h -b -c
  nests            both    a/e/d/ a/e/d/f=x -b -c
  swallows         both    a/d/ a/d/e/ a/d/e/h=xyz a/d/f=x -a/e -b -c
to-file
  leaves           place   a/d=yq
  chmods           place   a/d=yq
  renames          place   a/d=yq
  renames-alike    place   a/d=yq
  recases          place   a/d=yq
  moves            place   a/d=yq
  fills            both!   a/d=yq a/d~/ a/d~/k=zq
  fills-alike      both!   a/d=yq a/d~/ a/d~/n=xy
  edits-inside     both!   a/d=yq a/d~/ a/d~/f=z
  empties          place   a/d=yq
  takes-out        place   a/d=yq
  moves-in         both!   a/d=yq a/d~/ a/d~/g=q -a/g
  deletes          place   a/d=yq
  deletes-parent   both    a/d=yq -a/e -a/g
  deletes-targets  both    a/d=yq -b -c
  to-file          both!   a/d=yq a/d~=zq
  to-link          both!   a/d=yq a/d~>k
  remakes          both!   a/d=yq a/d~/ a/d~/k=zq
  swaps            both!   a/d=yq a/d~/ a/d~/h=xyz -a/e
  nests            place   a/d=yq
  swallows         both!   a/d=yq a/d~/ a/d~/e/ a/d~/e/h=xyz -a/e
to-link
  leaves           place   a/d>j
  chmods           place   a/d>j
  renames          place   a/d>j
  renames-alike    place   a/d>j
  recases          place   a/d>j
  moves            place   a/d>j
  fills            both!   a/d>j a/d~/ a/d~/k=zq
  fills-alike      both!   a/d>j a/d~/ a/d~/n=xy
  edits-inside     both!   a/d>j a/d~/ a/d~/f=z
  empties          place   a/d>j
  takes-out        place   a/d>j
  moves-in         both!   a/d>j a/d~/ a/d~/g=q -a/g
  deletes          place   a/d>j
  deletes-parent   both    a/d>j -a/e -a/g
  deletes-targets  both    a/d>j -b -c
  to-file          both!   a/d>j a/d~=zq
  to-link          both!   a/d>j a/d~>k
  remakes          both!   a/d>j a/d~/ a/d~/k=zq
  swaps            both!   a/d>j a/d~/ a/d~/h=xyz -a/e
  nests            place   a/d>j
  swallows         both!   a/d>j a/d~/ a/d~/e/ a/d~/e/h=xyz -a/e
remakes
  leaves           place   a/d/ a/d/j=yq
  chmods           place   a/d/ a/d/j=yq
  renames          place   a/d/ a/d/j=yq
  renames-alike    place   a/d/ a/d/j=yq
  recases          place   a/d/ a/d/j=yq
  moves            place   a/d/ a/d/j=yq
  fills            both    a/d/ a/d/j=yq a/d/k=zq
  fills-alike      both    a/d/ a/d/j=yq a/d/n=xy
  edits-inside     both    a/d/ a/d/j=yq a/d/f=z
  empties          place   a/d/ a/d/j=yq
  takes-out        place   a/d/ a/d/j=yq
  moves-in         both    a/d/ a/d/j=yq a/d/g=q -a/g
  deletes          place   a/d/ a/d/j=yq
  deletes-parent   both    a/d/ a/d/j=yq -a/e -a/g
  deletes-targets  both    a/d/ a/d/j=yq -b -c
  to-file          both!   a/d/ a/d/j=yq a/d~=zq
  to-link          both!   a/d/ a/d/j=yq a/d~>k
  remakes          both    a/d/ a/d/j=yq a/d/k=zq
  swaps            both!   a/d/ a/d/j=yq a/d~/ a/d~/h=xyz -a/e
  nests            place   a/d/ a/d/j=yq
  swallows         both    a/d/ a/d/j=yq a/d/e/ a/d/e/h=xyz -a/e
swaps
  leaves           place   a/d/ a/d/h=xyz a/e/f=x -a/e/h
  chmods           both    a/d/ a/d/h=xyz a/e/:750 a/e/f=x -a/e/h
  renames          place!  a/d/ a/d/h=xyz a/e/f=x -a/e/h
  renames-alike    place!  a/d/ a/d/h=xyz a/e/f=x -a/e/h
  recases          place!  a/d/ a/d/h=xyz a/e/f=x -a/e/h
  moves            place!  a/d/ a/d/h=xyz a/e/f=x -a/e/h
  fills            both    a/d/ a/d/h=xyz a/e/f=x a/e/k=zq -a/e/h
  fills-alike      both    a/d/ a/d/h=xyz a/e/f=x a/e/n=xy -a/e/h
  edits-inside     both    a/d/ a/d/h=xyz a/e/f=z -a/e/h
  empties          both    a/d/ a/d/h=xyz -a/e/h
  takes-out        both    a/d/ a/d/h=xyz c/f=x -a/e/h
  moves-in         both    a/d/ a/d/h=xyz a/e/f=x a/e/g=q -a/e/h -a/g
  deletes          both    a/d/ a/d/h=xyz -a/e
  deletes-parent   commit  -a
  deletes-targets  both    a/d/ a/d/h=xyz a/e/f=x -a/e/h -b -c
  to-file          both!   a/d/ a/d/h=xyz a/d~=zq -a/e
  to-link          both!   a/d/ a/d/h=xyz a/d~>k -a/e
  remakes          both!   a/d/ a/d/h=xyz a/d~/ a/d~/k=zq -a/e
  swaps            -       a/d/ a/d/h=xyz a/e/f=x -a/e/h
  nests            place!  a/d/ a/d/h=xyz a/e/f=x -a/e/h
  swallows         place!  a/d/ a/d/h=xyz a/e/f=x -a/e/h
nests
  leaves           place   a/e/d/ a/e/d/f=x
  chmods           both    a/e/d/:750 a/e/d/f=x
  renames          place!  a/e/d/ a/e/d/f=x
  renames-alike    place!  a/e/d/ a/e/d/f=x
  recases          place!  a/e/d/ a/e/d/f=x
  moves            place!  a/e/d/ a/e/d/f=x
  fills            both    a/e/d/ a/e/d/f=x a/e/d/k=zq
  fills-alike      both    a/e/d/ a/e/d/f=x a/e/d/n=xy
  edits-inside     both    a/e/d/ a/e/d/f=z
  empties          both    a/e/d/
  takes-out        both    a/e/d/ c/f=x
  moves-in         both    a/e/d/ a/e/d/f=x a/e/d/g=q -a/g
  deletes          commit  .
  deletes-parent   commit  -a
  deletes-targets  both    a/e/d/ a/e/d/f=x -b -c
  to-file          commit  a/d=zq
  to-link          commit  a/d>k
  remakes          commit  a/d/ a/d/k=zq
  swaps            both!   a/d/ a/d/d/ a/d/d/f=x a/d/h=xyz -a/e
  nests            -       a/e/d/ a/e/d/f=x
  swallows         place!  a/e/d/ a/e/d/f=x
swallows
  leaves           place   a/d/ a/d/e/ a/d/e/h=xyz a/d/f=x -a/e
  chmods           both    a/d/:750 a/d/e/ a/d/e/h=xyz a/d/f=x -a/e
  renames          both    a/k/ a/k/e/ a/k/e/h=xyz a/k/f=x -a/e
  renames-alike    both    a/n/ a/n/e/ a/n/e/h=xyz a/n/f=x -a/e
  recases          both    a/D/ a/D/e/ a/D/e/h=xyz a/D/f=x -a/e
  moves            both    c/d/ c/d/e/ c/d/e/h=xyz c/d/f=x -a/e
  fills            both    a/d/ a/d/e/ a/d/e/h=xyz a/d/f=x a/d/k=zq -a/e
  fills-alike      both    a/d/ a/d/e/ a/d/e/h=xyz a/d/f=x a/d/n=xy -a/e
  edits-inside     both    a/d/ a/d/e/ a/d/e/h=xyz a/d/f=z -a/e
  empties          both    a/d/ a/d/e/ a/d/e/h=xyz -a/e
  takes-out        both    a/d/ a/d/e/ a/d/e/h=xyz c/f=x -a/e
  moves-in         both    a/d/ a/d/e/ a/d/e/h=xyz a/d/f=x a/d/g=q -a/e -a/g
  deletes          both    a/d/ a/d/e/ a/d/e/h=xyz -a/e
  deletes-parent   commit  -a
  deletes-targets  both    a/d/ a/d/e/ a/d/e/h=xyz a/d/f=x -a/e -b -c
  to-file          both!   a/d/ a/d/e/ a/d/e/h=xyz a/d~=zq -a/e
  to-link          both!   a/d/ a/d/e/ a/d/e/h=xyz a/d~>k -a/e
  remakes          both    a/d/ a/d/e/ a/d/e/h=xyz a/d/k=zq -a/e
  swaps            both!   a/e/e/ a/e/e/h=xyz a/e/f=x -a/e/h
  nests            place!  a/d/ a/d/e/ a/d/e/h=xyz a/d/f=x -a/e
  swallows         -       a/d/ a/d/e/ a/d/e/h=xyz a/d/f=x -a/e
"""

NAMES: Final = """
leaves
  leaves           -       .
  file             commit  a/n=zq
  file-alike       commit  a/n=xy
  file-timed       commit  a/n=xy@12
  file-moded       commit  a/n=xy:755
  directory        commit  a/n/ a/n/k=zq
  empty-directory  commit  a/n/
  link             commit  a/n>k
  link-alike       commit  a/n>n
  moves-f          commit  a/n=x -a/f
  moves-own        commit  a/n=q -a/g
  deletes-parent   commit  -a
file
  leaves           place   a/n=yq
  file             both!   a/n=yq a/n~=zq
  file-alike       both!   a/n=yq a/n~=xy
  file-timed       both!   a/n=yq a/n~=xy@12
  file-moded       both!   a/n=yq a/n~=xy:755
  directory        both!   a/n=yq a/n~/ a/n~/k=zq
  empty-directory  both!   a/n=yq a/n~/
  link             both!   a/n=yq a/n~>k
  link-alike       both!   a/n=yq a/n~>n
  moves-f          both!   a/n=yq a/n~=x -a/f
  moves-own        both!   a/n=yq a/n~=q -a/g
  deletes-parent   both    a/n=yq -a/f -a/g
file-alike
  leaves           place   a/n=xy
  file             both!   a/n=xy a/n~=zq
  file-alike       -       a/n=xy
  file-timed       place!  a/n=xy
  file-moded       place!  a/n=xy
  directory        both!   a/n=xy a/n~/ a/n~/k=zq
  empty-directory  both!   a/n=xy a/n~/
  link             both!   a/n=xy a/n~>k
  link-alike       both!   a/n=xy a/n~>n
  moves-f          both!   a/n=xy a/n~=x -a/f
  moves-own        both!   a/n=xy a/n~=q -a/g
  deletes-parent   both    a/n=xy -a/f -a/g
file-timed
  leaves           place   a/n=xy@11
  file             both!   a/n=xy@11 a/n~=zq
  file-alike       place!  a/n=xy@11
  file-timed       place!  a/n=xy@11
  file-moded       place!  a/n=xy@11
  directory        both!   a/n=xy@11 a/n~/ a/n~/k=zq
  empty-directory  both!   a/n=xy@11 a/n~/
  link             both!   a/n=xy@11 a/n~>k
  link-alike       both!   a/n=xy@11 a/n~>n
  moves-f          both!   a/n=xy@11 a/n~=x -a/f
  moves-own        both!   a/n=xy@11 a/n~=q -a/g
  deletes-parent   both    a/n=xy@11 -a/f -a/g
file-moded
  leaves           place   a/n=xy:600
  file             both!   a/n=xy:600 a/n~=zq
  file-alike       place!  a/n=xy:600
  file-timed       place!  a/n=xy:600
  file-moded       place!  a/n=xy:600
  directory        both!   a/n=xy:600 a/n~/ a/n~/k=zq
  empty-directory  both!   a/n=xy:600 a/n~/
  link             both!   a/n=xy:600 a/n~>k
  link-alike       both!   a/n=xy:600 a/n~>n
  moves-f          both!   a/n=xy:600 a/n~=x -a/f
  moves-own        both!   a/n=xy:600 a/n~=q -a/g
  deletes-parent   both    a/n=xy:600 -a/f -a/g
directory
  leaves           place   a/n/ a/n/j=yq
  file             both!   a/n/ a/n/j=yq a/n~=zq
  file-alike       both!   a/n/ a/n/j=yq a/n~=xy
  file-timed       both!   a/n/ a/n/j=yq a/n~=xy@12
  file-moded       both!   a/n/ a/n/j=yq a/n~=xy:755
  directory        both    a/n/ a/n/j=yq a/n/k=zq
  empty-directory  place   a/n/ a/n/j=yq
  link             both!   a/n/ a/n/j=yq a/n~>k
  link-alike       both!   a/n/ a/n/j=yq a/n~>n
  moves-f          both!   a/n/ a/n/j=yq a/n~=x -a/f
  moves-own        both!   a/n/ a/n/j=yq a/n~=q -a/g
  deletes-parent   both    a/n/ a/n/j=yq -a/f -a/g
empty-directory
  leaves           place   a/n/
  file             both!   a/n/ a/n~=zq
  file-alike       both!   a/n/ a/n~=xy
  file-timed       both!   a/n/ a/n~=xy@12
  file-moded       both!   a/n/ a/n~=xy:755
  directory        commit  a/n/ a/n/k=zq
  empty-directory  -       a/n/
  link             both!   a/n/ a/n~>k
  link-alike       both!   a/n/ a/n~>n
  moves-f          both!   a/n/ a/n~=x -a/f
  moves-own        both!   a/n/ a/n~=q -a/g
  deletes-parent   both    a/n/ -a/f -a/g
link
  leaves           place   a/n>j
  file             both!   a/n>j a/n~=zq
  file-alike       both!   a/n>j a/n~=xy
  file-timed       both!   a/n>j a/n~=xy@12
  file-moded       both!   a/n>j a/n~=xy:755
  directory        both!   a/n>j a/n~/ a/n~/k=zq
  empty-directory  both!   a/n>j a/n~/
  link             both!   a/n>j a/n~>k
  link-alike       both!   a/n>j a/n~>n
  moves-f          both!   a/n>j a/n~=x -a/f
  moves-own        both!   a/n>j a/n~=q -a/g
  deletes-parent   both    a/n>j -a/f -a/g
link-alike
  leaves           place   a/n>n
  file             both!   a/n>n a/n~=zq
  file-alike       both!   a/n>n a/n~=xy
  file-timed       both!   a/n>n a/n~=xy@12
  file-moded       both!   a/n>n a/n~=xy:755
  directory        both!   a/n>n a/n~/ a/n~/k=zq
  empty-directory  both!   a/n>n a/n~/
  link             both!   a/n>n a/n~>k
  link-alike       -       a/n>n
  moves-f          both!   a/n>n a/n~=x -a/f
  moves-own        both!   a/n>n a/n~=q -a/g
  deletes-parent   both    a/n>n -a/f -a/g
moves-f
  leaves           place   a/n=x -a/f
  file             both!   a/n=x a/n~=zq -a/f
  file-alike       both!   a/n=x a/n~=xy -a/f
  file-timed       both!   a/n=x a/n~=xy@12 -a/f
  file-moded       both!   a/n=x a/n~=xy:755 -a/f
  directory        both!   a/n=x a/n~/ a/n~/k=zq -a/f
  empty-directory  both!   a/n=x a/n~/ -a/f
  link             both!   a/n=x a/n~>k -a/f
  link-alike       both!   a/n=x a/n~>n -a/f
  moves-f          -       a/n=x -a/f
  moves-own        both!   a/n=x a/n~=q -a/f -a/g
  deletes-parent   commit  -a
moves-own
  leaves           place   a/n=x -a/f
  file             both!   a/n=x a/n~=zq -a/f
  file-alike       both!   a/n=x a/n~=xy -a/f
  file-timed       both!   a/n=x a/n~=xy@12 -a/f
  file-moded       both!   a/n=x a/n~=xy:755 -a/f
  directory        both!   a/n=x a/n~/ a/n~/k=zq -a/f
  empty-directory  both!   a/n=x a/n~/ -a/f
  link             both!   a/n=x a/n~>k -a/f
  link-alike       both!   a/n=x a/n~>n -a/f
  moves-f          -       a/n=x -a/f
  moves-own        both!   a/n=x a/n~=q -a/f -a/g
  deletes-parent   commit  -a
deletes-parent
  leaves           place   -a
  file             both    a/n=zq -a/f -a/g
  file-alike       both    a/n=xy -a/f -a/g
  file-timed       both    a/n=xy@12 -a/f -a/g
  file-moded       both    a/n=xy:755 -a/f -a/g
  directory        both    a/n/ a/n/k=zq -a/f -a/g
  empty-directory  both    a/n/ -a/f -a/g
  link             both    a/n>k -a/f -a/g
  link-alike       both    a/n>n -a/f -a/g
  moves-f          place   -a
  moves-own        place   -a
  deletes-parent   -       -a
"""

RINGS: Final = """
leaves
  leaves           -       .
  p-in-q           commit  q/p/ q/p/f=x -p
  q-in-p           commit  p/q/ p/q/f=xy -q
  q-in-r           commit  r/q/ r/q/f=xy -q
  r-in-p           commit  p/r/ p/r/f=xyz -r
  p-in-q-in-r      commit  r/q/ r/q/f=xy r/q/p/ r/q/p/f=x -p -q
  q-in-r-in-p      commit  p/r/ p/r/f=xyz p/r/q/ p/r/q/f=xy -q -r
  r-in-q-in-p      commit  p/q/ p/q/f=xy p/q/r/ p/q/r/f=xyz -q -r
  edits-in-q       commit  q/f=z
  deletes-q        commit  -q
  p-in-q-deletes-r commit  q/p/ q/p/f=x -p -r
p-in-q
  leaves           place   q/p/ q/p/f=x -p
  p-in-q           -       q/p/ q/p/f=x -p
  q-in-p           place!  q/p/ q/p/f=x -p
  q-in-r           both    r/q/ r/q/f=xy r/q/p/ r/q/p/f=x -p -q
  r-in-p           both    q/p/ q/p/f=x q/p/r/ q/p/r/f=xyz -p -r
  p-in-q-in-r      commit  r/q/ r/q/f=xy r/q/p/ r/q/p/f=x -p -q
  q-in-r-in-p      both#   q/p/ q/p/f=x q/p/r/ q/p/r/f=xyz -p -r
  r-in-q-in-p      both!   q/p/ q/p/f=x q/r/ q/r/f=xyz -p -r
  edits-in-q       both    q/f=z q/p/ q/p/f=x -p
  deletes-q        both    q/p/ q/p/f=x -p -q/f
  p-in-q-deletes-r commit  q/p/ q/p/f=x -p -r
q-in-p
  leaves           place   p/q/ p/q/f=xy -q
  p-in-q           place!  p/q/ p/q/f=xy -q
  q-in-p           -       p/q/ p/q/f=xy -q
  q-in-r           place!  p/q/ p/q/f=xy -q
  r-in-p           both    p/q/ p/q/f=xy p/r/ p/r/f=xyz -q -r
  p-in-q-in-r      place!  p/q/ p/q/f=xy -q
  q-in-r-in-p      both!   p/q/ p/q/f=xy p/r/ p/r/f=xyz -q -r
  r-in-q-in-p      commit  p/q/ p/q/f=xy p/q/r/ p/q/r/f=xyz -q -r
  edits-in-q       both    p/q/ p/q/f=z -q
  deletes-q        commit  -q
  p-in-q-deletes-r both!   p/q/ p/q/f=xy -q -r
q-in-r
  leaves           place   r/q/ r/q/f=xy -q
  p-in-q           both    r/q/ r/q/f=xy r/q/p/ r/q/p/f=x -p -q
  q-in-p           place!  r/q/ r/q/f=xy -q
  q-in-r           -       r/q/ r/q/f=xy -q
  r-in-p           both    p/r/ p/r/f=xyz p/r/q/ p/r/q/f=xy -q -r
  p-in-q-in-r      commit  r/q/ r/q/f=xy r/q/p/ r/q/p/f=x -p -q
  q-in-r-in-p      commit  p/r/ p/r/f=xyz p/r/q/ p/r/q/f=xy -q -r
  r-in-q-in-p      place!  r/q/ r/q/f=xy -q
  edits-in-q       both    r/q/ r/q/f=z -q
  deletes-q        commit  -q
  p-in-q-deletes-r both    r/q/ r/q/f=xy r/q/p/ r/q/p/f=x -p -q -r/f
r-in-p
  leaves           place   p/r/ p/r/f=xyz -r
  p-in-q           both    q/p/ q/p/f=x q/p/r/ q/p/r/f=xyz -p -r
  q-in-p           both    p/q/ p/q/f=xy p/r/ p/r/f=xyz -q -r
  q-in-r           both    p/r/ p/r/f=xyz p/r/q/ p/r/q/f=xy -q -r
  r-in-p           -       p/r/ p/r/f=xyz -r
  p-in-q-in-r      both#   p/r/ p/r/f=xyz p/r/q/ p/r/q/f=xy -q -r
  q-in-r-in-p      commit  p/r/ p/r/f=xyz p/r/q/ p/r/q/f=xy -q -r
  r-in-q-in-p      both!   p/q/ p/q/f=xy p/r/ p/r/f=xyz -q -r
  edits-in-q       both    p/r/ p/r/f=xyz q/f=z -r
  deletes-q        both    p/r/ p/r/f=xyz -q -r
  p-in-q-deletes-r commit  q/p/ q/p/f=x -p -r
p-in-q-in-r
  leaves           place   r/q/ r/q/f=xy r/q/p/ r/q/p/f=x -p -q
  p-in-q           place   r/q/ r/q/f=xy r/q/p/ r/q/p/f=x -p -q
  q-in-p           place!  r/q/ r/q/f=xy r/q/p/ r/q/p/f=x -p -q
  q-in-r           place   r/q/ r/q/f=xy r/q/p/ r/q/p/f=x -p -q
  r-in-p           place!  r/q/ r/q/f=xy r/q/p/ r/q/p/f=x -p -q
  p-in-q-in-r      -       r/q/ r/q/f=xy r/q/p/ r/q/p/f=x -p -q
  q-in-r-in-p      place!  r/q/ r/q/f=xy r/q/p/ r/q/p/f=x -p -q
  r-in-q-in-p      place!  r/q/ r/q/f=xy r/q/p/ r/q/p/f=x -p -q
  edits-in-q       both    r/q/ r/q/f=z r/q/p/ r/q/p/f=x -p -q
  deletes-q        both    r/q/ r/q/p/ r/q/p/f=x -p -q
  p-in-q-deletes-r both    r/q/ r/q/f=xy r/q/p/ r/q/p/f=x -p -q -r/f
q-in-r-in-p
  leaves           place   p/r/ p/r/f=xyz p/r/q/ p/r/q/f=xy -q -r
  p-in-q           place!  p/r/ p/r/f=xyz p/r/q/ p/r/q/f=xy -q -r
  q-in-p           place!  p/r/ p/r/f=xyz p/r/q/ p/r/q/f=xy -q -r
  q-in-r           place   p/r/ p/r/f=xyz p/r/q/ p/r/q/f=xy -q -r
  r-in-p           place   p/r/ p/r/f=xyz p/r/q/ p/r/q/f=xy -q -r
  p-in-q-in-r      place!  p/r/ p/r/f=xyz p/r/q/ p/r/q/f=xy -q -r
  q-in-r-in-p      -       p/r/ p/r/f=xyz p/r/q/ p/r/q/f=xy -q -r
  r-in-q-in-p      place!  p/r/ p/r/f=xyz p/r/q/ p/r/q/f=xy -q -r
  edits-in-q       both    p/r/ p/r/f=xyz p/r/q/ p/r/q/f=z -q -r
  deletes-q        both    p/r/ p/r/f=xyz -q -r
  p-in-q-deletes-r both!   p/r/ p/r/q/ p/r/q/f=xy -q -r
r-in-q-in-p
  leaves           place   p/q/ p/q/f=xy p/q/r/ p/q/r/f=xyz -q -r
  p-in-q           place!  p/q/ p/q/f=xy p/q/r/ p/q/r/f=xyz -q -r
  q-in-p           place   p/q/ p/q/f=xy p/q/r/ p/q/r/f=xyz -q -r
  q-in-r           place!  p/q/ p/q/f=xy p/q/r/ p/q/r/f=xyz -q -r
  r-in-p           place!  p/q/ p/q/f=xy p/q/r/ p/q/r/f=xyz -q -r
  p-in-q-in-r      place!  p/q/ p/q/f=xy p/q/r/ p/q/r/f=xyz -q -r
  q-in-r-in-p      place!  p/q/ p/q/f=xy p/q/r/ p/q/r/f=xyz -q -r
  r-in-q-in-p      -       p/q/ p/q/f=xy p/q/r/ p/q/r/f=xyz -q -r
  edits-in-q       both    p/q/ p/q/f=z p/q/r/ p/q/r/f=xyz -q -r
  deletes-q        both    p/q/ p/q/r/ p/q/r/f=xyz -q -r
  p-in-q-deletes-r both!   p/q/ p/q/f=xy -q -r
edits-in-q
  leaves           place   q/f=y
  p-in-q           both    q/f=y q/p/ q/p/f=x -p
  q-in-p           both    p/q/ p/q/f=y -q
  q-in-r           both    r/q/ r/q/f=y -q
  r-in-p           both    p/r/ p/r/f=xyz q/f=y -r
  p-in-q-in-r      both    r/q/ r/q/f=y r/q/p/ r/q/p/f=x -p -q
  q-in-r-in-p      both    p/r/ p/r/f=xyz p/r/q/ p/r/q/f=y -q -r
  r-in-q-in-p      both    p/q/ p/q/f=y p/q/r/ p/q/r/f=xyz -q -r
  edits-in-q       both!   q/f=y q/f~=z
  deletes-q        place   q/f=y
  p-in-q-deletes-r both    q/f=y q/p/ q/p/f=x -p -r
deletes-q
  leaves           place   -q
  p-in-q           both    q/p/ q/p/f=x -p -q/f
  q-in-p           place   -q
  q-in-r           place   -q
  r-in-p           both    p/r/ p/r/f=xyz -q -r
  p-in-q-in-r      both    r/q/ r/q/p/ r/q/p/f=x -p -q
  q-in-r-in-p      both    p/r/ p/r/f=xyz -q -r
  r-in-q-in-p      both    p/q/ p/q/r/ p/q/r/f=xyz -q -r
  edits-in-q       commit  q/f=z
  deletes-q        -       -q
  p-in-q-deletes-r both    q/p/ q/p/f=x -p -q/f -r
p-in-q-deletes-r
  leaves           place   q/p/ q/p/f=x -p -r
  p-in-q           place   q/p/ q/p/f=x -p -r
  q-in-p           place!  q/p/ q/p/f=x -p -r
  q-in-r           both    r/q/ r/q/f=xy r/q/p/ r/q/p/f=x -p -q -r/f
  r-in-p           place   q/p/ q/p/f=x -p -r
  p-in-q-in-r      both    r/q/ r/q/f=xy r/q/p/ r/q/p/f=x -p -q -r/f
  q-in-r-in-p      place!  q/p/ q/p/f=x -p -r
  r-in-q-in-p      place!  q/p/ q/p/f=x -p -r
  edits-in-q       both    q/f=z q/p/ q/p/f=x -p -r
  deletes-q        both    q/p/ q/p/f=x -p -q/f -r
  p-in-q-deletes-r -       q/p/ q/p/f=x -p -r
"""
