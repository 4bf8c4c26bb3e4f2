"""The gateway tells the end of each worker that it was asked for."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
from typing import Any, cast

import pytest

from loaderd import config
from loaderd.gateway import server
from loaderd.ipc import channel, segment
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import Ended, Fork, Signal
from loaderd.remote import fingerprint
from tests.support.daemons import DEADLINE


def test_a_worker_that_is_killed_before_it_begins_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fingerprint, "take", dict)

    async def story() -> None:
        ours, theirs = channel.pair()
        worker, its_end = channel.pair()
        with ours, theirs, worker:
            supervisor = Channel(ours)
            work = segment.publish(pickle.dumps((None, (config.load({}, {}),))))
            supervisor.send(Fork(5), [work, its_end.fileno()])
            supervisor.send(Signal(5, signal.SIGKILL))  # read in the same turn of the loop
            its_end.close()
            os.close(work)
            gateway = server._Gateway(Channel(theirs), cast(Any, None))
            task = asyncio.create_task(gateway.run())
            supervisor.settimeout(DEADLINE)
            assert await asyncio.to_thread(supervisor.receive) == Ended(5, -signal.SIGKILL)
            with pytest.raises(Closed):
                Channel(worker).receive()
            assert gateway._relays == {}
            supervisor.shut_down()
            await asyncio.wait_for(task, DEADLINE)

    asyncio.run(story())
