"""A mail server that keeps what it gets, and fails as it is told to."""

import asyncio
import email
import socket
from collections import Counter
from email.policy import default

from aiosmtpd.controller import Controller


class Mailbox:
    """What a server took: (return address, recipient, message as it was read), by the order of its last line.

    `rcpt` and `data` are functions of the recipient: the answer, or None to take it. `data` may also be a coroutine, which is
    awaited when the last line has come and before it is answered.
    """

    def __init__(self):
        self.taken = []
        self.rcpt = lambda to: None
        self.data = lambda to: None

    async def handle_RCPT(self, server, session, envelope, address, options):
        if answer := self.rcpt(address):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):
        (to,) = envelope.rcpt_tos
        answer = self.data(to)
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer is None or answer.startswith("250"):
            self.taken.append((envelope.mail_from, to, email.message_from_bytes(envelope.content, policy=default)))
        return answer or "250 2.0.0 taken"

    def to(self, address):
        return [message for _, to, message in self.taken if to == address]

    def counts(self):
        return Counter(to for _, to, _ in self.taken)


class MailServer(Controller):
    """aiosmtpd on a free port of this machine."""

    def __init__(self, mailbox=None):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.mailbox = mailbox or Mailbox()
        super().__init__(self.mailbox, hostname="127.0.0.1", port=port)
        self.url = f"smtp://127.0.0.1:{port}"

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop(no_assert=True)
