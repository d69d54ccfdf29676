import socket
from pathlib import Path

import pytest

from api.demo.programs import configuration
from api.server_settings import ServerSettings
from api.up.hold import AlreadyRunningError, Hold, Note, locked, read_note
from api.up.plan import PortTakenError, choose_port, local_url, programs, settle_configuration
from collector.settings import ConfigError

EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound here


def test_a_second_holder_is_told_who_the_first_is(tmp_path: Path) -> None:
    with Hold(tmp_path) as hold:
        hold.write(Note(pid=4711, url="http://127.0.0.1:8472", started_ns=1, programs={"server": 4712}, restarts={}))
        with pytest.raises(AlreadyRunningError, match=r"pid 4711 http://127\.0\.0\.1:8472"):
            Hold(tmp_path)
        with Hold(tmp_path, "demo"):
            pass
        assert locked(tmp_path / "up.lock")
    assert not locked(tmp_path / "up.lock")
    assert read_note(tmp_path) is None
    with Hold(tmp_path):
        pass


def test_half_a_note_is_no_note(tmp_path: Path) -> None:
    (tmp_path / "up.json").write_text('{"pid": 1')
    assert read_note(tmp_path) is None


def test_ports_are_taken_chosen_or_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"port {port} on 127.0.0.1 is taken"):
            choose_port("127.0.0.1", port)
        other = choose_port("127.0.0.1", None, preferred=port)
        assert other not in (0, port)
    assert choose_port("127.0.0.1", port) == port
    assert choose_port("127.0.0.1", 0) != 0


def test_a_directory_without_configuration_gets_the_order_paths(tmp_path: Path) -> None:
    file, demo, remark = settle_configuration(tmp_path, None, None)
    assert demo
    assert file == tmp_path / "tailsight.toml"
    assert file.read_text() == configuration().read_text()
    assert "was written" in remark
    assert settle_configuration(tmp_path, None, None) == (file, True, "")
    assert settle_configuration(tmp_path, None, False) == (file, False, "")


def test_a_configuration_without_the_order_paths_points_turns_it_off(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[points.mine]\nlayer = "application"\n')
    file, demo, remark = settle_configuration(tmp_path, mine, None)
    assert (file, demo) == (mine, False)
    assert "does not declare" in remark
    with pytest.raises(ConfigError, match="not declared"):
        settle_configuration(tmp_path, mine, True)


def test_no_demo_writes_no_configuration(tmp_path: Path) -> None:
    assert settle_configuration(tmp_path, None, False) == (None, False, "")
    assert not (tmp_path / "tailsight.toml").exists()


def test_sources_of_stamps_stop_before_the_agent_and_the_agent_before_the_server(tmp_path: Path) -> None:
    plan = programs(tmp_path, None, "127.0.0.1", "http://127.0.0.1:1", demo=True)
    phases = {program.name: program.phase for program in plan}
    stops = sorted(phases, key=lambda name: -phases[name])
    names = [name.partition("-")[0] for name in stops]
    assert list(dict.fromkeys(names)) == [
        "feed", "engine", "inference", "back", "gateway", "venue", "links", "agent", "server",
    ]  # fmt: skip
    assert [program.name for program in programs(tmp_path, None, "127.0.0.1", "http://127.0.0.1:1", demo=False)] == [
        "server",
        "agent",
    ]


def test_the_agent_is_told_where_the_server_answers(tmp_path: Path) -> None:
    settings = ServerSettings(host=EVERYWHERE, allow_plain_text=True)
    assert local_url(settings, 7) == "http://127.0.0.1:7"
    assert local_url(ServerSettings(host="::1", tls_cert="c", tls_key="k"), 7) == "https://[::1]:7"
    server, agent, *rest = programs(tmp_path, None, EVERYWHERE, "http://127.0.0.1:7", demo=True, ring_dir="/rings")
    assert server.arguments[-4:] == ("--host", EVERYWHERE, "--port", "7")
    assert agent.arguments[-2:] == ("--server", "http://127.0.0.1:7")
    assert {program.environment["TAILSIGHT_PROBE_DIR"] for program in rest} == {"/rings"}
