from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tfmmcl.cohorts.trajectory import Excluded, Seen
from tfmmcl.records.flow import EXAMPLES, LEVELS, Flow

REASONS = {"patients": "a", "stays": "b", "records": "c", "anchors": "d"}
ITEMS = st.one_of(
    st.builds(Seen, st.sampled_from(LEVELS[1:]), st.integers(0, 5)),
    st.builds(
        lambda level, more, detail: Excluded(level, REASONS[level] + more, detail),
        st.sampled_from(LEVELS),
        st.sampled_from("xyz"),
        st.text(max_size=3),
    ),
)


@given(shards=st.lists(st.lists(ITEMS, max_size=12), max_size=5))
def test_the_flow_counts_every_item_once_whatever_shard_it_is_in(shards):
    total = Flow()
    for items in shards:
        part = Flow()
        for item in items:
            part.add(item)
        total.merge(part.plain())
    items = [item for shard in shards for item in shard]
    lost = Counter((item.level, item.reason) for item in items if isinstance(item, Excluded))
    seen = Counter()
    for item in items:
        if isinstance(item, Seen):
            seen[item.level] += item.count
    levels = total.levels(patients=100, trajectories=7)
    assert [level.level for level in levels] == [
        "patients",
        *(level for level in LEVELS[1:] if seen[level] or any(key[0] == level for key in lost)),
        "trajectories",
    ]
    assert {(level.level, reason): count for level in levels for reason, count in level.lost.items()} == dict(lost)
    assert [levels[0].seen, levels[-1].seen] == [100, 7]
    assert all(level.seen == seen[level.level] for level in levels[1:-1])
    for level in levels:
        assert sorted(level.lost.values(), reverse=True) == list(level.lost.values())
    if lost:
        by_reason = Counter()
        for (_, reason), count in lost.items():
            by_reason[reason] += count
        named = total.most_lost().split("; ")
        assert [by_reason[reason] for reason in named] == sorted(by_reason.values(), reverse=True)[:3]
        assert len(set(named)) == len(named)
    else:
        assert total.most_lost() == ""


@given(shards=st.lists(st.lists(ITEMS, max_size=12), max_size=5))
def test_examples_are_a_few_details_of_each_reason_and_none_twice(shards):
    total = Flow()
    for items in shards:
        part = Flow()
        for item in items:
            part.add(item)
        total.merge(part.plain())
    details = {}
    for item in (item for shard in shards for item in shard if isinstance(item, Excluded)):
        details.setdefault(item.reason, set()).update([item.detail] if item.detail else [])
    assert total.examples.keys() == details.keys()
    for reason, shown in total.examples.items():
        assert len(shown) == len(set(shown)) == min(EXAMPLES, len(details[reason]))
        assert set(shown) <= details[reason]
