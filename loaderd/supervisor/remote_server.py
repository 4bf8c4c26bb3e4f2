"""The supervisor's side of the gateway, which stands for the workers on other machines.

If the gateway cannot join the cluster, or dies, another one is started after a pause; the workers
of this machine go on meanwhile.
"""

from __future__ import annotations

import logging
import signal
import time

from loaderd.ipc.messages import Connected, Message, Refused
from loaderd.supervisor.children import ChildServer
from loaderd.supervisor.loop import Loop
from loaderd.supervisor.server_process import Program, ServerProcess
from loaderd.supervisor.start_pauses import StartPauses

log = logging.getLogger("loaderd")

JOIN_SECONDS = 20.0
"""The time that a gateway has to join the cluster."""

DIE_SECONDS = 10.0
"""A gateway that does not tell the end of a killed worker within so long is killed itself."""

_PROGRAM = "from loaderd.gateway.server import main; main()"


class RemoteServer(ChildServer):
    """Has workers started on other machines.

    Args:
        loop: waits for what the gateway says.
        address: of the cluster.
        tells: whether it writes to the log that it has joined, as the first gateway does.

    Attributes:
        connected: whether the present gateway has joined the cluster.
        trouble: why the last one has not.
    """

    def __init__(self, loop: Loop, address: str, tells: bool = True) -> None:
        program = Program("the gateway to Ray", "loaderd-ray", _PROGRAM, (address,))
        super().__init__(loop, program)
        self._address = address
        self.connected = False
        self._tells = tells
        self.trouble = ""
        self._logged: str | None = None  # what fails at the start ends the daemon, which says why
        self._pauses = StartPauses()
        self._began_at = 0.0
        self._killed: dict[int, float] = {}

    def begin(self) -> None:
        """Starts the gateway, if none runs and it is time."""
        now = time.monotonic()
        if self._server is not None or now < self._pauses.resume_at:
            return
        try:
            self._server_now()
            self._began_at, self.trouble = now, ""
        except OSError as error:
            self._note_trouble(str(error))

    def wake(self) -> None:
        """Also starts a gateway where there is none, and ends one that does not answer."""
        super().wake()
        self.begin()
        now = time.monotonic()
        late = not self.connected and now - self._began_at > JOIN_SECONDS
        if self._server is not None and late:
            self._note_trouble(f"--ray {self._address}: no answer within {JOIN_SECONDS:g} s")
            self._server.send(signal.SIGKILL)
        if any(now - since > DIE_SECONDS for since in self._killed.values()):
            log.error("%s is killed: it does not end its workers", self._program.name)
            self._killed.clear()
            if self._server is not None:
                self._server.send(signal.SIGKILL)

    def _running(self) -> ServerProcess:
        if self._server is None or not self.connected:
            raise OSError(f"{self._program.name} is not there: {self.trouble or 'it starts'}")
        return self._server

    def _signal(self, number: int, what: signal.Signals) -> None:
        if what == signal.SIGKILL:
            self._killed.setdefault(number, time.monotonic())
        super()._signal(number, what)

    def _heard(self, message: Message) -> None:
        match message:
            case Connected(address):
                self.connected = True
                self._pauses.note_success()
                self.trouble = self._logged = ""
                if self._tells:
                    log.info("workers may join from the Ray cluster at %s", address)
            case Refused(_, text):
                self._note_trouble(text)
            case _:
                super()._heard(message)

    def _end(self, number: int, code: int | None) -> None:
        self._killed.pop(number, None)
        super()._end(number, code)

    def _server_ended(self, server: ServerProcess) -> None:
        super()._server_ended(server)  # which also takes in what it said last
        self.connected = False
        if not self.trouble:
            self._note_trouble(f"{self._program.name} has died")

    def _note_trouble(self, text: str) -> None:
        """Notes why there are no workers of other machines; the same is logged once."""
        if self._logged is not None and text != self._logged:
            log.warning("%s", text)
            self._logged = text
        self.trouble = text
        self._pauses.note_failure()
