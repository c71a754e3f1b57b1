"""The values: names, manifests, digests and chains."""

from __future__ import annotations

import hashlib
from uuid import UUID

import pytest

from broker.model import (
    MAX_NAME_SIZE_BYTES,
    Chunk,
    Splice,
    apply_splices,
    extend_chain,
    first_chain,
    fold_name,
    make_splices,
    manifest_digest,
    name_problem,
    subtree_digest,
    target_problem,
)

A, B, C, D = (Chunk(hash=bytes([number]) * 32, size=number) for number in (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("base", "splices", "result"),
    [
        ((A, B, C), (), (A, B, C)),
        ((A, B, C), (Splice(1, 1, (D,)),), (A, D, C)),
        ((A, B, C), (Splice(0, 0, (D,)),), (D, A, B, C)),
        ((A, B, C), (Splice(3, 0, (D,)),), (A, B, C, D)),
        ((A, B, C), (Splice(0, 3, ()),), ()),
        ((A, B, C), (Splice(0, 1, ()), Splice(2, 1, (D, D))), (B, D, D)),
        ((), (Splice(0, 0, (A,)),), (A,)),
    ],
)
def test_splices_make_the_new_manifest(base, splices, result):
    assert apply_splices(base, splices) == result


@pytest.mark.parametrize("base", [(), (A,), (A, B, C), (A, A, A), (D, C, B, A)])
@pytest.mark.parametrize("new", [(), (A,), (A, A), (A, D, C), (D, A, B, C, D), (B, C)])
def test_what_was_made_as_splices_comes_out_again(base, new):
    assert apply_splices(base, make_splices(base, new)) == new
    assert len(make_splices(new, new)) == 0


@pytest.mark.parametrize(
    "splices",
    [
        (Splice(4, 0, ()),),
        (Splice(2, 2, ()),),
        (Splice(1, 2, ()), Splice(2, 0, (D,))),
        (Splice(2, 0, ()), Splice(1, 0, ())),
    ],
)
def test_splices_that_overlap_descend_or_reach_too_far_are_refused(splices):
    with pytest.raises(ValueError):
        apply_splices((A, B, C), splices)


def test_a_manifests_digest_sees_order_hash_and_size():
    manifests = [(), (A,), (A, B), (B, A), (A, A), (Chunk(hash=A.hash, size=9),)]
    assert len({manifest_digest(manifest) for manifest in manifests}) == len(manifests)


def test_a_subtrees_digest_is_of_the_set_and_of_the_versions():
    first, second = UUID(int=1), UUID(int=2)
    assert subtree_digest([(first, 1), (second, 2)]) == subtree_digest([(second, 2), (first, 1)])
    assert subtree_digest([(first, 1)]) != subtree_digest([(first, 2)])
    assert subtree_digest([]) == hashlib.sha256().digest()


def test_a_chain_is_of_one_workspace_and_one_order():
    one, other = first_chain(UUID(int=1)), first_chain(UUID(int=2))
    assert one != other
    assert extend_chain(extend_chain(one, b"a"), b"b") != extend_chain(extend_chain(one, b"b"), b"a")


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "ä",
        "a b",
        "...",
        " ",
        "-",
        "con.txt",
        "a\nb",
        "x" * MAX_NAME_SIZE_BYTES,
        ".hutch2",
        "hutch",
        "\u202e",
    ],
)
def test_a_name_that_a_file_may_have(name: str):
    assert name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "/",
        "a\0",
        "\udcff",
        "x" * (MAX_NAME_SIZE_BYTES + 1),
        "ä" * 128,
        ".hutch",
        ".HUTCH",
        ".Hutch.",
        ".hutch ",
        ".hu\u200btch",
        ".ｈutch",
    ],
)
def test_a_name_that_no_file_may_have(name: str):
    assert name_problem(name) is not None


@pytest.mark.parametrize(("one", "other"), [("A", "a"), ("\u00e9", "e\u0301"), ("x.", "x"), ("ß", "SS")])
def test_names_that_may_clash_fold_alike(one: str, other: str):
    assert fold_name(one) == fold_name(other)


@pytest.mark.parametrize(
    ("target", "good"), [("../x", True), ("", False), ("a\0", False), ("x" * 4096, False)]
)
def test_targets_of_links(target: str, good: bool):
    assert (target_problem(target) is None) is good
