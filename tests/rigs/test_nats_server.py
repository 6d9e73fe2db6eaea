import nats
import pytest
from rigs.waiting import eventually


async def test_it_keeps_its_port_and_its_streams_over_a_crash(nats_server):
    server = nats_server()
    client = await nats.connect(server.url, reconnect_time_wait=0.05, max_reconnect_attempts=-1)
    streams = client.jetstream()
    await streams.add_stream(name="s", subjects=["s.>"])
    await streams.publish("s.a", b"kept")
    port = server.port
    server.kill()
    await eventually(lambda: not client.is_connected, "the client to see the crash")
    server.start()
    assert server.port == port
    await eventually(lambda: client.is_connected, "the client to come back")
    assert (await streams.get_msg("s", 1)).data == b"kept"
    await client.close()


async def test_each_server_is_its_own_and_takes_more_configuration(nats_server):
    plain = nats_server(jetstream=False)
    named = nats_server('server_name: "second"')
    assert plain.port != named.port
    client = await nats.connect(named.url)
    assert client._server_info["server_name"] == "second"
    await client.close()


def test_a_bad_configuration_tells_why(nats_server):
    with pytest.raises(RuntimeError, match="no_such_setting"):
        nats_server("no_such_setting: 1")
