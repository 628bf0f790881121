"""Each address gets exactly one letter: with a mail server that fails, a sender and a database that are killed in the middle."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from followers import NOW, composed, edition, follow, letters, paper, states
from smtp import MailServer
from sqlalchemy import select, update

from broadsheet.errors import InputError, StoreError
from broadsheet.lab.people import Letter, Subscription, Suppressed
from broadsheet.lab.store import Store
from broadsheet.readers import sending, subscriptions
from broadsheet.readers.mail import Server, post
from broadsheet.readers.sending import Sending
from waiting import until

MANY = [f"reader{k}@example.org" for k in range(100)]
PROCESS = """
import sys
from broadsheet.lab.store import Store
from broadsheet.readers import keys, mail, sending
store = Store()
letters = sending.Letters(mail.Sender("Papers", "papers@example.org", "https://papers.example.org"), keys.site_key(store))
sys.exit(1 if sending.Sending(store, mail.post(sys.argv[1]), letters).run().waiting else 0)
"""
"""A sender as a process of its own."""


def waiting(store, addresses):
    """A letter waits for each address."""
    follow(store, *addresses)
    assert composed(store, edition(paper("news"))).letters == len(addresses)


def send(store, url, between=(0.0, 0.0), **options):
    return Sending(store, post(url), letters(store), between, **options).run()


def sender(url):
    return subprocess.Popen([sys.executable, "-c", PROCESS, url])


def due_now(store):
    """As if the pauses of letters that wait were over."""
    with store.session() as session:
        session.execute(update(Letter).values(due=Letter.changed))


def test_every_letter_goes_out_once(any_home):
    store = Store()
    waiting(store, MANY[:20])
    with MailServer() as server:
        assert send(store, server.url).sent == 20
        assert send(store, server.url).sent == 0
        assert server.mailbox.counts() == dict.fromkeys(MANY[:20], 1)
    for envelope, to, message in server.mailbox.taken:
        assert message["To"] == to
        assert envelope.startswith("bounces+")
        assert envelope.endswith("@example.org")
        assert len(envelope.partition("@")[0]) <= 64


def test_a_sender_killed_anywhere_sends_nothing_twice_and_forgets_nothing(home):
    """Killed before a letter's last line, it goes out at the next try; killed after it, the server has it."""
    store = Store()
    waiting(store, MANY)
    process, kills = None, []

    def now_and_then(name, numbers):
        def answer(to):
            if int(to.partition("@")[0][6:]) in numbers and (name, to) not in kills:
                kills.append((name, to))
                process.kill()
                process.wait()

        return answer

    with MailServer() as server:
        server.mailbox.rcpt = now_and_then("before", (20, 61))
        server.mailbox.data = now_and_then("after", (60,))
        for _ in range(4):
            process = sender(server.url)
            process.wait()
        assert len(kills) == 3
        assert process.returncode == 0
        assert server.mailbox.counts() == dict.fromkeys(MANY, 1)
    found = states(store)
    assert {to: state for to, state in found.items() if state != ["sent"]} == {MANY[60]: ["unsure"]}
    assert send(store, "smtp://127.0.0.1:9").sent == 0


def test_senders_at_the_same_time(any_home):
    store = Store()
    waiting(store, MANY[:30])
    inside, go_on = threading.Event(), threading.Event()

    async def slow(to):
        inside.set()
        await asyncio.to_thread(go_on.wait, 30)

    with MailServer() as server:
        server.mailbox.data = slow
        first = threading.Thread(target=send, args=(store, server.url))
        first.start()
        assert inside.wait(30)
        with pytest.raises(InputError, match="being sent just now"):
            send(Store(), server.url)
        go_on.set()
        first.join(60)
        assert server.mailbox.counts() == dict.fromkeys(MANY[:30], 1)
    assert send(store, server.url).sent == 0  # what the first one held is free again


def test_two_senders_that_do_not_know_of_each_other(any_home, monkeypatch):
    """As on two homes where the database forgets who holds what: each letter is claimed once."""
    from contextlib import nullcontext

    monkeypatch.setattr(sending, "only_sender", lambda store: nullcontext())
    monkeypatch.setattr(Sending, "_left_behind", lambda self: [])
    store = Store()
    waiting(store, MANY[:16])
    with MailServer() as server:
        both = [threading.Thread(target=send, args=(Store(), server.url)) for _ in range(2)]
        for each in both:
            each.start()
        for each in both:
            each.join(60)
        assert server.mailbox.counts() == dict.fromkeys(MANY[:16], 1)
    assert set(map(tuple, states(store).values())) == {("sent",)}


def test_refusals(home):
    """4xx: later, each time after a longer pause; 5.1.1: the address has ended; other 5xx end it after five."""
    store = Store()
    waiting(store, MANY[:6])
    answers = {MANY[0]: "451 4.7.1 greylisted", MANY[1]: "550 5.1.1 no such user", MANY[2]: "550 5.7.1 not wanted"}
    with MailServer() as server:
        server.mailbox.rcpt = answers.get
        server.mailbox.data = {MANY[3]: "452 4.2.2 full", MANY[4]: "554 5.6.0 spam"}.get
        summary = send(store, server.url)
        assert (summary.sent, summary.later, summary.refused, summary.ended, summary.waiting) == (1, 2, 2 + 1, 1, 2)
        found = states(store)
        assert MANY[1] not in found
        assert found[MANY[0]] == ["waiting"]
        assert found[MANY[4]] == ["refused"]
        assert subscriptions.suppressed(store, MANY[1])
        assert not subscriptions.suppressed(store, MANY[2])
        assert send(store, server.url).sent == 0  # not due yet
        for tries in range(2, 7):
            due_now(store)
            assert send(store, server.url).later == (2 if tries < 6 else 0)
        assert states(store)[MANY[0]] == ["refused"]
        server.mailbox.rcpt = server.mailbox.data = lambda to: None
        due_now(store)
        send(store, server.url)
        assert server.mailbox.counts() == {MANY[5]: 1}


def test_an_address_refused_for_good_five_times_is_left_in_peace(home, monkeypatch):
    store = Store()
    follow(store, MANY[0])
    with store.session() as session:
        number = session.scalars(select(Subscription.id)).one()
    ended = [subscriptions.returned(store, number, "4.2.2") for _ in range(5)]
    assert ended == [False] * 4 + [True]
    follow(store, MANY[1])
    with store.session() as session:
        number = session.scalars(select(Subscription.id)).one()
        session.execute(
            update(Subscription).values(returned=4, returned_last=subscriptions.datetime(2020, 1, 1, tzinfo=subscriptions.UTC))
        )
    assert not subscriptions.returned(store, number, "4.2.2")  # those of long ago do not count


def test_a_server_that_refuses_everybody_ends_nobody(home):
    store = Store()
    waiting(store, MANY[:30])
    with MailServer() as server:
        server.mailbox.rcpt = lambda to: "554 5.7.1 Relay access denied"
        summary = send(store, server.url)
        assert (summary.refused, summary.ended, summary.waiting) == (10, 0, 20)
        assert "Relay access denied" in summary.trouble
        with store.session() as session:
            assert len(session.scalars(select(Subscription.id)).all()) == 30
            assert not session.scalars(select(Suppressed.digest)).all()


class Rude:
    """A mail server in a few lines that does at one step of its fourth letter what is asked: `hang` or `close`."""

    def __init__(self, step, what):
        self.step, self.what, self.seen, self.taken = step, what, 0, []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"smtp://127.0.0.1:{self.socket.getsockname()[1]}?timeout=0.5"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def rude(self, step, connection):
        if step == self.step:
            self.seen += 1
            if self.seen == 4 or step == "connect":
                if self.what == "hang":
                    time.sleep(2)
                connection.shutdown(socket.SHUT_RDWR)
                raise OSError
        return True

    def serve(self, connection):
        lines = connection.makefile("rb")
        try:
            self.rude("connect", connection)
            connection.sendall(b"220 here\r\n")
            to = ""
            while line := lines.readline():
                verb = line[:4].upper()
                if verb == b"RCPT":
                    to = line.decode().partition("<")[2].partition(">")[0]
                    self.rude("rcpt", connection)
                if verb == b"DATA":
                    connection.sendall(b"354 go on\r\n")
                    while (body := lines.readline()) not in (b".\r\n", b""):
                        if body.startswith(b"List-Id"):
                            self.rude("middle", connection)
                    if not body:
                        return
                    self.taken.append(to)
                    self.rude("dot", connection)
                connection.sendall(b"250 fine\r\n")
        except OSError:
            connection.close()


@pytest.mark.parametrize("what", ["hang", "close"])
@pytest.mark.parametrize("step", ["rcpt", "middle", "dot", "connect"])
def test_a_server_that_hangs_or_goes_away(home, step, what):
    store = Store()
    waiting(store, MANY[:8])
    server = Rude(step, what)
    summary = send(store, server.url)
    if step == "connect":
        assert (summary.sent, summary.waiting) == (0, 8)
        assert summary.trouble
        server.step = ""
        due_now(store)
        summary = send(store, server.url)
    server.socket.close()
    unsure = [to for to, state in states(store).items() if state == ["unsure"]]
    lost = [MANY[3]] if step == "middle" and unsure else []  # the last line was sent to a server that did not read any more
    assert sorted([*server.taken, *lost]) == sorted(MANY[:8])
    assert step in ("dot", "middle") or not unsure
    assert unsure == [MANY[3]] or step != "dot"
    assert len(summary.unsure) == len(unsure)
    assert summary.waiting == 0


def test_a_connection_that_the_server_closes_between_letters_is_made_again(home):
    store = Store()
    waiting(store, MANY[:3])
    server = Rude("", "")
    out = Server(server.url)
    send_one = out.send

    def closing(*given):
        answer = send_one(*given)
        out._open.sock.shutdown(socket.SHUT_RDWR)
        return answer

    out.send = closing
    summary = Sending(store, out, letters(store), ()).run()
    server.socket.close()
    assert (summary.sent, sorted(server.taken)) == (3, MANY[:3])


def test_whoever_unsubscribes_meanwhile_gets_nothing(home):
    store = Store()
    waiting(store, MANY[:5])
    with store.session() as session:
        last = session.scalars(select(Subscription.id).where(Subscription.address == MANY[4])).one()
    with MailServer() as server:
        server.mailbox.rcpt = lambda to: subscriptions.unsubscribe(store, last) if to == MANY[4] else None
        assert send(store, server.url).sent == 4
        assert server.mailbox.counts() == dict.fromkeys(MANY[:4], 1)
    assert states(store) == {to: ["sent"] for to in MANY[:4]}


def test_the_words_of_a_search_that_are_gone_meanwhile(home):
    store = Store()
    of = edition(paper("news"))
    of.search = lambda *_: SimpleNamespace(slugs=["news"])
    follow(store, MANY[0])
    follow(store, MANY[1], kind="search", value="q=x")
    assert composed(store, of).letters == 2
    with MailServer() as server:
        server.mailbox.rcpt = lambda to: subscriptions.suppress(store, MANY[1]) and None
        assert send(store, server.url).sent == 1


def test_what_waited_for_a_week_is_given_up(home):
    store = Store()
    waiting(store, MANY[:2])
    subscriptions.forget(store, NOW + timedelta(days=6))
    assert states(store)[MANY[0]] == ["waiting"]
    subscriptions.forget(store, NOW + timedelta(days=8))
    assert states(store)[MANY[0]] == ["refused"]
    subscriptions.forget(store, NOW + timedelta(days=80))
    assert states(store) == {}


def test_a_store_that_fails_in_the_middle(home, monkeypatch):
    """Also where the store has kept a claim and could not say so."""
    store = Store()
    waiting(store, MANY[:6])
    claim, failures = Sending._claim, {3: "before", 4: "after"}

    def failing(self, number):
        what = failures.pop(number, None)
        if what == "before":
            raise StoreError("away")
        claim(self, number)
        if what == "after":
            raise StoreError("away")

    monkeypatch.setattr(Sending, "_claim", failing)
    with MailServer() as server:
        assert send(store, server.url).sent == 6
        assert server.mailbox.counts() == dict.fromkeys(MANY[:6], 1)
    assert set(map(tuple, states(store).values())) == {("sent",)}
    assert not failures


def test_a_database_killed_in_the_middle(home, monkeypatch, tmp_path_factory, kill_server):
    pgserver = pytest.importorskip("pgserver", reason="PostgreSQL is not here: pip install '.[dev,postgres]'")
    place = tmp_path_factory.mktemp("pg")
    for folder in (place.parent.parent, place.parent):
        folder.chmod(0o755)
    database = pgserver.get_server(place, cleanup_mode=None)
    monkeypatch.setenv("BROADSHEET_DATABASE", database.get_uri())
    store = Store()
    waiting(store, MANY[:40])
    killed = threading.Event()

    async def kill(to):
        if to == MANY[25] and not killed.is_set():
            await asyncio.to_thread(kill_server, place)
            killed.set()

    try:
        with MailServer() as server:
            server.mailbox.data = kill
            process = sender(server.url)
            assert killed.wait(60)
            database = pgserver.get_server(place, cleanup_mode="delete")
            assert process.wait(90) == 0
            assert server.mailbox.counts() == dict.fromkeys(MANY[:40], 1)
        store = Store()
        assert set(map(tuple, states(store).values())) == {("sent",)}
    finally:
        store.engine.dispose()
        database.cleanup()


def test_a_signal_ends_a_digest_after_the_letter_that_it_is_at(home, tmp_path):
    store = Store()
    waiting(store, MANY[:50])
    words = ["--mail-from", "papers@example.org", "--url", "https://papers.example.org", "--no-meaning"]
    with MailServer() as server:
        process = None
        seen = threading.Event()

        async def stop(to):
            if to == MANY[10] and not seen.is_set():
                seen.set()
                process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.5)

        server.mailbox.data = stop
        command = [sys.executable, "-m", "broadsheet.cli", "digest", "--mail", server.url, *words]
        process = subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, text=True, cwd=Path(tmp_path))
        said = process.communicate(timeout=120)[0]
        assert process.returncode == 1
        assert "39 wait" in said
        assert server.mailbox.counts() == dict.fromkeys(MANY[:11], 1)
    assert list(states(store).values()) == [["sent"]] * 11 + [["waiting"]] * 39
    until(lambda: process.poll() is not None)
