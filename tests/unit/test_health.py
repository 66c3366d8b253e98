"""What ``status`` and ``doctor`` make of what they see."""

from __future__ import annotations

import os

import msgspec
import pytest

from redislogkit import config as configuration
from redislogkit import identity, launch
from redislogkit.errors import ServerAwayError
from redislogkit.health import doctor, folders, notes, overview, server, spools
from redislogkit.health.findings import waits, worst
from redislogkit.health.overview import Seen
from redislogkit.health.spools import SpoolState
from redislogkit.record import Facts
from redislogkit.spool import doorbell
from redislogkit.stream.client import Overview, WriterState
from tests.helpers.spools import Rig

HOST = identity.host_name()
NOW = 1_000_000.0


def state(total=100, *, holder=f"{HOST}:/x", lease=NOW + 5, unread=None):
    return WriterState("5-0", total, holder, lease, unread)


def stream(added=100, overflow=0, **writers):
    return Overview(NOW, 3, added, overflow, writers or {"app": state()})


def child(name, kind, child_state="running", **more):
    return {"name": name, "kind": kind, "state": child_state, "pid": 7, "since": 0.0, "restarts": 0, **more}


def supervisor(*children, **more):
    running = children or (child("shipper", "shipper"), child("app", "writer"))
    return {"ok": True, "pid": 5, "children": list(running), "config_error": "", "dropped": {}, **more}


def seen(**changes):
    made = Seen(1.0, supervisor(), "", stream(), "", spools.Spools([], {}), "")
    return made._replace(**changes)


def spool(waiting=0, *, alive=True, size=1000):
    return SpoolState("p-1", Facts("p", HOST, 9, "Main", 0.0, 0), alive, 50 + waiting, 50, 50, size)


@pytest.fixture
def config(tmp_path):
    return configuration.load(
        {"state_dir": str(tmp_path / "state"), "writers": {"app": {"type": "file", "path": str(tmp_path / "a")}},
         "redis": {"url": "redis://h"}, "stream": {"max_records": 1000}}
    )  # fmt: skip


def found(config, now, before=None):
    return overview.findings(config, now, overview.writers(config, now, before))


def changed(config, section, **values):
    return msgspec.structs.replace(
        config, **{section: msgspec.structs.replace(getattr(config, section), **values)}
    )


# --- status ------------------------------------------------------------------------------------------------


def test_all_is_well_where_everybody_runs_and_nobody_waits(config):
    assert found(config, seen()) == []


def test_a_writer_has_a_row_with_its_rate_and_lag(config):
    before = seen(stream=stream(now_is_different=state(40)))._replace(
        stream=stream(app=state(40))._replace(now=NOW - 2)
    )
    now = seen(
        supervisor=supervisor(child("app", "writer", restarts=3, error="disk full")),
        stream=stream(added=150, app=state(100, unread=NOW - 4)),
    )
    (row,) = overview.writers(config, now, before)
    assert row == ("app", "file", "running", 50, 4.0, 30.0, "5-0", 3, HOST, "disk full")


def test_a_writer_of_another_host_is_elsewhere_while_it_holds_the_lease(config):
    now = seen(supervisor=supervisor(child("shipper", "shipper")))
    there = now._replace(stream=stream(app=state(holder="web2:/x")))
    gone = now._replace(stream=stream(app=state(holder="web2:/x", lease=NOW - 1)))
    assert [overview.writers(config, each)[0].state for each in (there, gone)] == ["elsewhere", "-"]


def test_a_writer_that_is_registered_and_not_configured_has_a_row_too(config):
    now = seen(stream=stream(app=state(), old=state(10, lease=0.0, unread=NOW - 100)))
    rows = overview.writers(config, now)
    assert [(row.name, row.type) for row in rows] == [("app", "file"), ("old", "")]
    (finding,) = found(config, now)
    assert finding.severity == "warning"
    assert "writers --drop old" in finding.advice


@pytest.mark.parametrize(
    ("changes", "severity", "said"),
    [
        (
            {"supervisor": supervisor(child("app", "writer", "set aside", last_exit="killed"))},
            "problem",
            "killed",
        ),
        ({"supervisor": supervisor(child("app", "writer", "restarting"))}, "warning", "restarting"),
        ({"supervisor": supervisor(config_error="line 3")}, "warning", "line 3"),
        ({"supervisor": supervisor(dropped={"shed": 5})}, "warning", "5 records were dropped: shed"),
        ({"stream": None, "stream_error": "refused"}, "problem", "refused"),
        ({"stream": stream(added=2000)}, "problem", "it is full"),
        ({"stream": stream(added=900)}, "warning", "800 records wait, of stream.max_records = 1,000"),
        ({"stream": stream(overflow=7)}, "warning", "7 records were dropped"),
        ({"stream": stream(added=150, app=state(unread=NOW - 60))}, "problem", "it writes nothing"),
        ({"stream": Overview(NOW, 3, 5, 0, {})}, "warning", "not registered"),
        ({"spools": spools.Spools([], {"x-1": "damaged"})}, "warning", "x-1 can not be read"),
        ({"spools": spools.Spools([spool(size=2**28)], {})}, "warning", "spool_max_bytes"),
        ({"spools_error": "no permission"}, "problem", "no permission"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(config, changes, severity, said):
    findings = found(config, seen(**changes))
    assert worst(findings) == severity
    assert any(said in finding.text and finding.advice for finding in findings)


def test_a_writer_that_is_behind_and_writes_catches_up(config):
    now = seen(stream=stream(added=900, app=state(150, unread=NOW - 60)))
    before = seen(stream=stream(app=state(100))._replace(now=NOW - 1))
    (finding,) = [one for one in found(config, now, before) if one.subject == "writer app"]
    assert finding.severity == "warning"
    assert "it writes 50 a second" in finding.text


@pytest.mark.parametrize(
    ("autostart", "on_disk", "severity"),
    [
        (True, [], "ok"),
        (True, [spool(waiting=3, alive=False)], "problem"),
        (True, [spool()], "problem"),
        (False, [], "problem"),
    ],
)
def test_nobody_has_to_run_where_nobody_logs_and_the_next_one_starts_it(config, autostart, on_disk, severity):
    config = changed(config, "supervisor", autostart=autostart)
    now = seen(supervisor=None, supervisor_error="nobody", spools=spools.Spools(on_disk, {}))
    (finding,) = [one for one in found(config, now) if one.subject == "supervisor"]
    assert finding.severity == severity
    assert "redislogkit supervise" in finding.advice or severity == "ok"


def test_nobody_is_needed_where_producers_ship_for_others(config):
    config = msgspec.structs.replace(changed(config, "producer", ship="thread"), writers={})
    now = seen(supervisor=None, stream=Overview(NOW, 0, 0, 0, {}), spools=spools.Spools([spool()], {}))
    assert worst(found(config, now)) == "ok"


def test_a_supervisor_that_runs_and_does_not_answer_is_a_problem(config):
    launch.prepare(config)
    bell = doorbell.Doorbell(launch.doorbell_path(config))
    try:
        now = overview.look(changed(config, "redis", url=f"unix://{config.stream_dir}/none.sock"))
        (finding,) = [one for one in found(config, now) if one.subject == "supervisor"]
    finally:
        bell.close()
    assert finding.severity == "problem"
    assert "it runs" in finding.advice


# --- spools ------------------------------------------------------------------------------------------------


def test_spools_are_counted_as_they_lie_on_the_disk(rig: Rig, config):
    config = msgspec.structs.replace(config, state_dir=os.path.dirname(rig.folder))
    config = changed(config, "stream", name=os.path.basename(rig.folder))
    for _ in range(5):
        rig.end.append(rig.payload(), 20)
    os.makedirs(os.path.join(rig.root, "broken-1"))
    looked = spools.look(config)
    (one,) = looked.states
    assert (one.alive, one.stored, one.waiting, one.facts.pid) == (True, 5, 5, os.getpid())
    assert one.bytes > 0
    assert list(looked.unreadable) == []  # it has no header yet: it is being made


def test_a_spool_that_can_not_be_read_does_not_hide_the_others(rig: Rig, config):
    config = msgspec.structs.replace(config, state_dir=os.path.dirname(rig.folder))
    config = changed(config, "stream", name=os.path.basename(rig.folder))
    rig.end.append(rig.payload(), 20)
    broken = os.path.join(rig.root, "broken-1")
    os.makedirs(broken)
    with open(os.path.join(broken, "header"), "wb") as file:
        file.write(b"x" * 4096)
    looked = spools.look(config)
    assert len(looked.states) == 1
    assert "not the header of a spool" in looked.unreadable["broken-1"]


# --- the server --------------------------------------------------------------------------------------------

GOOD = {
    "redis_version": "7.2.4", "valkey_version": "9.1.2", "role": "master", "connected_slaves": "1", "loading": "0",
    "maxmemory": str(2**30), "maxmemory_policy": "noeviction", "used_memory": str(2**20),
    "total_system_memory": str(2**33), "aof_enabled": "1", "aof_last_write_status": "ok",
    "rdb_last_bgsave_status": "ok", "connected_clients": "3", "maxclients": "10000",
}  # fmt: skip


def judged(config, facts=None, **info):
    return server.findings(config, facts or server.Facts({**GOOD, **info}, "", {}, 0.001, 0.0, 1000))


def test_a_server_as_it_should_be_has_nothing_but_ok(config):
    assert worst(judged(config)) == "ok"


@pytest.mark.parametrize(
    ("info", "severity", "said"),
    [
        ({"valkey_version": "", "redis_version": "6.0.16"}, "problem", "too old"),
        ({"redis_mode": "cluster"}, "warning", "cluster"),
        ({"redis_mode": "sentinel"}, "problem", "sentinel"),
        ({"role": "slave"}, "problem", "replica"),
        ({"loading": "1"}, "warning", "loading"),
        ({"maxmemory_policy": "allkeys-lru"}, "problem", "throws the stream away"),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": "0"}, "warning", "would throw"),
        ({"maxmemory_policy": "volatile-lru"}, "ok", "volatile-lru"),
        ({"used_memory": str(2**30)}, "problem", "MiB used"),
        ({"used_memory": str(int(0.9 * 2**30))}, "warning", "MiB used"),
        ({"maxmemory": "0", "used_memory": str(2**33 - 1)}, "warning", "maxmemory is not set"),
        ({"aof_last_write_status": "err"}, "problem", "append-only"),
        ({"rdb_last_bgsave_status": "err"}, "warning", "snapshot"),
        ({"connected_clients": "9999"}, "warning", "maxclients"),
    ],
)
def test_a_server_is_judged_by_what_it_tells(config, info, severity, said):
    findings = judged(config, **info)
    assert worst(findings) == severity
    assert any(said in finding.text for finding in findings)


def test_with_ack_stream_a_server_has_to_keep_what_it_takes(config):
    assert worst(judged(changed(config, "producer", ack="stream"), aof_enabled="0")) == "warning"
    assert worst(judged(config, aof_enabled="0")) == "ok"


@pytest.mark.parametrize(
    ("save", "aof", "kept"),
    [
        ("", "1", "append-only file"),
        ("", "0", "nothing"),
        ("3600 1", "0", "snapshots"),
        (None, "0", "snapshots, perhaps"),
    ],
)
def test_what_a_server_keeps_on_disk_is_what_it_is_set_to(config, save, aof, kept):
    info = {**GOOD, "aof_enabled": aof, "rdb_last_save_time": "1796056389"}
    told = judged(config, server.Facts(info, save, {}, 0.001, 0.0, 1000))
    assert f"on disk: {kept}; not" in next(each.text for each in told if each.subject == "persistence")


def test_rights_clocks_and_distance_are_judged(config):
    facts = server.Facts(GOOD, None, {"XADD": "no permission"}, 0.2, 60.0, None)
    told = {finding.subject: finding for finding in judged(config, facts)}
    assert told["rights"].severity == "problem"
    assert "XADD" in told["rights"].text
    assert "+xadd" in told["rights"].advice
    assert told["clocks"].severity == told["network"].severity == "warning"


def test_a_server_that_does_not_tell_is_a_warning(config):
    assert worst(judged(config, server.Facts({}, None, {}, 0.001, 0.0, None))) == "warning"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("Error 111 connecting to h:6379. Connection refused.", "nothing listens"),
        ("Authentication required.", "needs a password"),
        ("invalid username-password pair or user is disabled.", "wrong"),
        ("Timeout connecting to server", "firewall"),
        ("MOVED 3999 10.0.0.1:6381", "cluster"),
        ("something else", "redis-cli"),
    ],
)
def test_why_a_server_can_not_be_asked_says_what_to_do(config, error, advice, monkeypatch):
    def refuse(*_):
        raise ServerAwayError(error)

    monkeypatch.setattr(server, "look", refuse)
    (finding,) = doctor._of_server(config, seen())
    assert finding.severity == "problem"
    assert advice in finding.advice


# --- disks -------------------------------------------------------------------------------------------------


def test_a_folder_that_does_not_exist_is_judged_by_the_one_above(tmp_path):
    folder = folders.look(str(tmp_path / "a" / "b"))
    assert (folder.existing, folder.writable) == (str(tmp_path), True)
    assert folder.free > 0


def test_a_file_in_place_of_a_folder_is_not_writable(tmp_path):
    (tmp_path / "file").write_text("x")
    assert not folders.look(str(tmp_path / "file")).writable


def test_file_systems_over_a_network_and_in_memory_are_known():
    folder = folders.look("/")
    assert folder._replace(file_system="nfs4").over_network
    assert folder._replace(file_system="tmpfs").in_memory
    assert not folder._replace(file_system="ext4").over_network


@pytest.mark.parametrize(("free", "severity"), [(1, "problem"), (100 * 2**20, "warning"), (2**40, "ok")])
def test_little_room_is_told(config, free, severity, monkeypatch):
    look = folders.look
    monkeypatch.setattr(folders, "look", lambda path: look(path)._replace(free=free))
    assert worst(doctor._of_disk(config)) == severity


def test_others_who_can_look_into_the_spools_are_told(config):
    launch.prepare(config)
    assert worst(doctor._of_disk(config)) == "ok"
    os.chmod(os.path.join(config.stream_dir, "spool"), 0o755)
    assert any("chmod 700" in finding.advice for finding in doctor._of_disk(config))


def test_damaged_segments_are_told(config):
    launch.prepare(config)
    os.makedirs(os.path.join(config.stream_dir, "damaged", "one"))
    assert any(finding.subject == "damaged" for finding in doctor._of_disk(config))


def test_a_supervisor_for_another_configuration_is_told(config):
    config = msgspec.structs.replace(config, source="/log.toml")
    launch.prepare(config)
    lonely = seen(
        supervisor=supervisor(child("shipper", "shipper"), config="/log.toml"), stream=stream(none=state())
    )
    assert worst(doctor._of_configuration(config, lonely)) == "ok"
    assert launch.announce(changed(config, "redis", url="redis://other"), launched=True)
    told = doctor._of_configuration(config, lonely)
    assert told == found(config, lonely)  # and nothing of a writer that is not there
    assert "for another content of this file" in told[0].text
    assert told[0].advice.endswith("redislogkit reload /log.toml")
    (other,) = found(config, seen(supervisor=supervisor(config="/other.toml")))
    assert (other.text[:45], other.advice) == (
        "the supervisor works for another one, /other.",
        "look with that one: redislogkit status /other.toml",
    )
    assert launch.announce(config, launched=True)
    assert worst(doctor._of_configuration(config, seen())) == "ok"


def test_one_record_waits_and_two_wait():
    assert [waits(0), waits(1), waits(2_000, " in 1 spool")] == [
        "0 records wait", "1 record waits", "2,000 records in 1 spool wait",
    ]  # fmt: skip


def test_code_that_a_writer_would_not_find_is_told(tmp_path):
    file = tmp_path / "log.toml"
    (tmp_path / "told_hook.py").write_text("def post(records, url): ...\n")
    text = f'state_dir = "{tmp_path}"\n[writers.a]\ntype = "custom"\n'
    for section, said in [
        ('target = "told_hook:post"\noptions = { url = "x" }', ""),
        ('target = "told_hook:pots"', "must be something that can be loaded here, got 'told_hook:pots'"),
        ('target = "told_hook:post"', "must take a list of records and the options (none)"),
        (
            'target = "told_hook:post"\noptions = { url = "x" }\nfilter = "nowhere:f"',
            "got 'nowhere:f': ModuleNotFound",
        ),
    ]:
        file.write_text(text + section)
        told = [
            note for note in notes.notes(configuration.load(file)) if note.subject.startswith("writers.a.")
        ]
        assert [said in note.text for note in told] == [True] * bool(said), told
