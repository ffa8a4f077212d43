import itertools

from hypothesis import given
from hypothesis import strategies as st

from retrograde.timeline.search import LONGEST, grouped

edges = st.lists(st.integers(0, 10**9), min_size=2, max_size=80, unique=True).map(sorted)


@given(edges, st.integers(1, 3), st.booleans())
def test_groups_cover_the_pieces_in_their_order(
    edges: list[int], side_by_side: int, backward: bool
) -> None:
    pieces = list(itertools.pairwise(edges))
    if backward:
        pieces.reverse()
    groups = grouped(pieces, side_by_side)
    inner = groups[::-1] if backward else groups
    assert inner[0][0] == edges[0]
    assert inner[-1][1] == edges[-1]
    assert all(low[1] == high[0] for low, high in itertools.pairwise(inner))
    assert groups[0] == pieces[0]
    assert all(
        sum(1 for piece in pieces if low <= piece[0] < high) <= LONGEST for low, high in groups
    )
