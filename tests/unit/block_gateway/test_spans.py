"""Which reads answer a request: neighbours of one pack together, in the order asked for."""

from uuid import UUID

from block_gateway.download import Span, singly, spans
from block_gateway.packs import Pack, Place
from block_gateway.wire import Codec, Frame, Header, absent

ONE, TWO = UUID(int=1), UUID(int=2)
KIB = 1024


def place(name: str, pack: UUID, offset: int, size: int = 10) -> Place:
    return Place(Header(name.encode() * 32, Codec.RAW, size, size), pack, offset)


def plan(asked: str, *places: Place) -> list[str]:
    """The reads as words: `ab` is one span of two chunks, `-c` an absent chunk."""
    pieces = spans([name.encode() * 32 for name in asked], {found.header.hash: found for found in places})
    return [
        "-" + chr(piece.hash[0])
        if isinstance(piece, Header)
        else "".join(chr(found.header.hash[0]) for found in piece.places)
        for piece in pieces
    ]


def test_neighbours_are_read_together() -> None:
    assert plan("abc", place("a", ONE, 0), place("b", ONE, 10), place("c", ONE, 20)) == ["abc"]


def test_order_asked_for_wins_over_the_packs_order() -> None:
    assert plan("ba", place("a", ONE, 0), place("b", ONE, 10)) == ["b", "a"]


def test_gap_or_another_pack_begins_a_new_read() -> None:
    assert plan("abc", place("a", ONE, 0), place("b", ONE, 11), place("c", TWO, 21)) == ["a", "b", "c"]


def test_absent_chunk_comes_in_its_turn() -> None:
    assert plan("axb", place("a", ONE, 0), place("b", ONE, 10)) == ["a", "-x", "b"]
    assert plan("xy") == ["-x", "-y"]


def test_double_is_sent_twice() -> None:
    assert plan("aa", place("a", ONE, 0)) == ["a", "a"]


def test_read_is_bounded_but_a_chunk_goes_whole() -> None:
    big = place("b", ONE, 600 * KIB, 600 * KIB)
    assert plan("ab", place("a", ONE, 0, 600 * KIB), big) == ["a", "b"]
    assert plan("a", place("a", ONE, 0, 4096 * KIB)) == ["a"]


def test_singly_takes_spans_apart() -> None:
    a, b = place("a", ONE, 0), place("b", ONE, 10)
    gone = absent(b"x" * 32)
    assert singly([Span((a, b)), gone]) == [Span((a,)), Span((b,)), gone]


def test_pack_holds_each_chunk_once_end_to_end() -> None:
    pack = Pack()
    for name in ("a", "b", "a"):
        pack.add(Frame(Header(name.encode() * 32, Codec.RAW, 3, 3), name.encode() * 3))
    assert (pack.size, pack.take_bytes()) == (6, b"aaabbb")
    assert [found.offset for found in pack.places.values()] == [0, 3]
