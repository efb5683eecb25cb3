"""New identities: ordered by time, and never given twice."""

import os
from concurrent.futures import ThreadPoolExecutor

from flotilla import uuid7

MANY = 2_000


def test_an_id_is_a_uuid_of_version_7() -> None:
    ids = [uuid7() for _ in range(MANY)]

    assert {7} == {i.version for i in ids}
    assert {"specified in RFC 4122"} == {i.variant for i in ids}
    assert [i.int >> 80 for i in ids] == sorted(i.int >> 80 for i in ids)


def test_threads_never_get_the_same_id() -> None:
    with ThreadPoolExecutor(4) as threads:
        ids = [
            i
            for some in threads.map(lambda _: [uuid7() for _ in range(MANY)], "abcd")
            for i in some
        ]

    assert 4 * MANY == len(set(ids))


def test_a_forked_child_draws_its_own_randomness() -> None:
    uuid7()  # there is something left over that both could use
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, uuid7().bytes)
        os._exit(0)
    os.waitpid(child, 0)

    random_bits = (1 << 62) - 1
    childs = int.from_bytes(os.read(reading, 16))
    os.close(reading)
    os.close(writing)
    assert uuid7().int & random_bits != childs & random_bits
