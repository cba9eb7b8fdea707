"""The room for a job's actors on a real local Ray, on which something else runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.ray
ray = pytest.importorskip("ray")

from ctxner.batch.pools import Pool, check_resources, room  # noqa: E402


@pytest.fixture
def six_cpus() -> Iterator[None]:
    assert not ray.is_initialized()
    ray.init(address="local", num_cpus=6, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_what_a_server_holds_is_no_room_for_actors(six_cpus: None, caplog: pytest.LogCaptureFixture) -> None:
    @ray.remote
    class Server:
        def is_up(self) -> bool:
            return True

    assert room(1.0, 0, 1, []) == (4, 1.0), "two CPUs are left to the tasks of Ray Data"
    servers = [Server.options(num_cpus=0.75).remote() for _ in range(2)]
    assert all(ray.get([server.is_up.remote() for server in servers]))
    assert room(1.0, 0, 1, []) == (2, 1.0), "4.5 CPUs are left, of which four are whole"
    assert room(0.5, 0, 2, []) == (2, 0.5)

    def pools(num_actors: int) -> list[Pool]:
        return [Pool(dict, (), 1, "tagging.actors", num_actors, 1.0)]

    check_resources(pools(2))
    assert not caplog.messages
    check_resources(pools(3))  # before, such a job could wait forever, and said nothing
    assert caplog.messages == [
        "the actors want 5 CPUs: 3 x 1 (dict, tagging.actors=3) and 2 for reading, resuming and writing; the cluster "
        "has 6, and others hold all but 4: the job waits for them; else lower the actors or what one reserves, or add "
        "nodes"
    ]
    with pytest.raises(ValueError, match=r"the actors want 7 CPUs.*the cluster has 6: lower the actors"):
        check_resources(pools(5))
