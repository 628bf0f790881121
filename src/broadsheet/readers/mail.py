"""Letters: how they are made, and how they go out, through an SMTP server or into a folder of `.eml` files."""

from __future__ import annotations

import os
import re
import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as POLICY
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from broadsheet.cache import writing
from broadsheet.errors import BroadsheetError, InputError

TIMEOUT = 60.0
"""Seconds that a server may take for each answer."""

STATUS = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})\b")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class MailError(BroadsheetError):
    """A letter did not go out. `lasting`: the server refuses this letter for good; `unsure`: it may have taken it; `server`: no
    letter gets through just now; `status`: what is wrong with it as the server says it (RFC 3463: 5.1.1); `to`: whether it is
    the recipient that was refused."""

    def __init__(
        self,
        message: str,
        lasting: bool = False,
        unsure: bool = False,
        server: bool = False,
        status: str = "",
        to: bool = False,
    ) -> None:
        super().__init__(message)
        self.lasting, self.unsure, self.server, self.status, self.to = lasting, unsure, server, status, to


@dataclass(frozen=True)
class Sender:
    """Whose letters they are: the name and address of the `From` line, and the site's public address (no slash at its end)."""

    name: str
    address: str
    url: str

    @property
    def host(self) -> str:
        return self.address.rpartition("@")[2]


def one_line(text: str, most: int = 180) -> str:
    """A text for a header: without line ends and control characters, cut at a word."""
    plain = " ".join(CONTROL.sub(" ", text).split())
    return plain if len(plain) <= most else plain[:most].rsplit(" ", 1)[0] + " …"


def letter(
    sender: Sender, to: str, subject: str, text: str, html: str = "", headers: dict[str, str] | None = None, name: str = ""
) -> EmailMessage:
    """A letter to one address, as text and, where given, as HTML; `name` makes its Message-ID, the same for the same letter."""
    message = EmailMessage(policy=POLICY)
    message["From"] = Address(one_line(sender.name, 60), addr_spec=sender.address)
    message["To"] = Address(addr_spec=to)
    message["Subject"] = one_line(subject)
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = f"<{name}@{sender.host}>" if name else make_msgid(domain=sender.host)
    message["Auto-Submitted"] = "auto-generated"
    for key, value in (headers or {}).items():
        message[key] = CONTROL.sub(" ", value)
    message.set_content(text, cte="quoted-printable")
    if html:
        message.add_alternative(html, subtype="html", cte="quoted-printable")
    return message


class Post(Protocol):
    """A way for letters to go out."""

    def send(self, message: EmailMessage, envelope: str, about_to: Callable[[], None] = lambda: None) -> str:
        """Sends a letter from the return address `envelope`; returns the server's answer, raises `MailError`.

        `about_to` is called when all but the last line is with the server, which takes nothing before that line: what it raises
        stops the letter.
        """
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


class Folder:
    """Letters as `.eml` files: a dry run, or the mailbox of a site without a mail server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def send(self, message: EmailMessage, envelope: str, about_to: Callable[[], None] = lambda: None) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^\w.-]+", "_", str(message["Message-ID"]).strip("<>"))
        about_to()
        with writing(self.folder / f"{name}.eml") as stream:
            stream.write(f"Return-Path: <{envelope}>\r\n".encode() + message.as_bytes())
        return "written"

    def close(self) -> None:
        pass


class Server:
    """An SMTP server: `smtp://` (STARTTLS where the server has it), `smtps://`, with `user:password@`; one connection for many
    letters. `smtp+starttls://` refuses a server without STARTTLS; a password is sent over TLS or to this machine alone."""

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        found = urlsplit(url)
        try:
            port = found.port
        except ValueError:
            port = -1
        if found.scheme not in ("smtp", "smtps", "smtp+starttls") or not found.hostname or port == -1:
            raise InputError("The mail server is wanted as smtp://host:port, smtps://user:password@host or a folder.")
        self._scheme, self._host = found.scheme, found.hostname
        self._port = port or {"smtps": 465, "smtp": 25}.get(found.scheme, 587)
        self._user, self._password = unquote(found.username or ""), unquote(found.password or "")
        self._timeout = float(parse_qs(found.query).get("timeout", [timeout])[0])
        self._open: smtplib.SMTP | None = None

    def send(self, message: EmailMessage, envelope: str, about_to: Callable[[], None] = lambda: None) -> str:
        to = str(message["To"].addresses[0].addr_spec)
        body = re.sub(rb"(?m)^\.", b"..", message.as_bytes())
        with self._trouble():
            server = self._begun(envelope)
            _expect(server.rcpt(to), 250, 251, to=True)
            _expect(server.docmd("DATA"), 354)
            server.send(body if body.endswith(b"\r\n") else body + b"\r\n")
            _expect_silence(server)
        try:
            about_to()
        except BaseException:
            self.drop()  # without its last line the server takes nothing
            raise
        try:
            server.send(b".\r\n")
            code, answer = server.getreply()
        except (OSError, smtplib.SMTPException) as error:
            self.drop()
            raise MailError(f"The mail server did not say whether it took the letter ({_said(error)}).", unsure=True) from None
        if code < 400 and not 200 <= code < 300:
            self.drop()
            raise MailError("The mail server did not say whether it took the letter (its answer is none).", unsure=True)
        if code >= 400:
            self.drop()
            raise _refusal(code, answer)
        return f"{code} {answer.decode(errors='replace')}"[:200]

    def _begun(self, envelope: str) -> smtplib.SMTP:
        """The server, told of a letter; a connection that it has closed since the last letter is made again."""
        if self._open is not None:
            with suppress(OSError, smtplib.SMTPException):
                if self._open.mail(envelope)[0] == 250:
                    return self._open
            self.drop()
        server = self._connection()
        _expect(server.mail(envelope), 250, server=True)
        return server

    def _connection(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        if self._scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(self._host, self._port, timeout=self._timeout, context=context)
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=self._timeout)
        self._open = server
        server.ehlo_or_helo_if_needed()
        secure = self._scheme == "smtps"
        local = self._host in ("localhost", "127.0.0.1", "::1")  # whose certificate is most often nobody's
        if not secure and server.has_extn("starttls") and not (local and self._scheme == "smtp"):
            server.starttls(context=context)
            server.ehlo()
            secure = True
        if self._scheme == "smtp+starttls" and not secure:
            raise MailError(f"The mail server {self._host} has no STARTTLS, which was asked for.", server=True)
        if self._user:
            if not secure and not local:
                raise MailError(f"The mail server {self._host} has no TLS: the password is not sent.", server=True)
            server.login(self._user, self._password)
        return server

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        """What goes wrong before the last line: the server has taken nothing."""
        try:
            yield
        except MailError:
            self.drop()
            raise
        except (OSError, smtplib.SMTPException) as error:
            self.drop()
            raise MailError(f"The mail server {self._host} cannot be used ({_said(error)}).", server=True) from None

    def drop(self) -> None:
        """Closes the connection without a word."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def close(self) -> None:
        if self._open is not None:
            with suppress(OSError, smtplib.SMTPException):
                self._open.quit()
            self.drop()


def post(where: str) -> Post:
    """A way out by its address: `smtp://…`, or a folder for `.eml` files."""
    return Server(where) if "://" in where else Folder(Path(where).expanduser())


def _expect_silence(server: smtplib.SMTP) -> None:
    """Raises where the server has closed the connection, or answers before it was asked: it will not take the letter."""
    assert server.sock is not None
    server.sock.setblocking(False)
    try:
        server.sock.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return
    finally:
        server.sock.settimeout(server.timeout)
    raise smtplib.SMTPServerDisconnected("it closed the connection in the middle of a letter")


def _expect(reply: tuple[int, bytes], *codes: int, server: bool = False, to: bool = False) -> None:
    if reply[0] not in codes:
        raise _refusal(*reply, server=server, to=to)


def _refusal(code: int, answer: bytes, server: bool = False, to: bool = False) -> MailError:
    said = one_line(re.sub(r"\S+@\S+", "…", answer.decode(errors="replace")), 120)  # addresses stay out of logs
    status = STATUS.match(said)
    message = f"The mail server refused the letter: {code} {said}"
    return MailError(message, 500 <= code < 600, False, server or code == 421, status[1] if status else "", to)


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer"
    return one_line(os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error) or "closed", 120)
