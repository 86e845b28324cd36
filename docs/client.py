#!/usr/bin/python3
"""A client of guise's pipes in Python 3, with the standard library alone.

It shows how little docs/protocol.md asks of a client: one byte and one descriptor to state a quality of service, and one
message with a socket in it to announce that this process has become somebody else: with what it writes next, and at once
if the server is to know before that.

    python3 client.py [--level L] [--tracking T] [--effective-only] PATH

sends its input to the pipe, line by line, and prints what the server answers. Programs import the class Pipe.
"""

import argparse
import array
import errno
import os
import socket
import struct
import sys
import threading

# The impersonation levels and the kinds of tracking, as the protocol numbers them. 0 leaves it to the server.
UNSTATED = 0
ANONYMOUS, IDENTIFICATION, IMPERSONATION, DELEGATION = 1, 2, 3, 4
STATIC, DYNAMIC = 1, 2

LEVELS = {"anonymous": ANONYMOUS, "identification": IDENTIFICATION, "impersonation": IMPERSONATION, "delegation": DELEGATION}
TRACKINGS = {"static": STATIC, "dynamic": DYNAMIC}

MAGIC, VERSION = b"GU", 1
KIND_HELLO, KIND_CONTEXT, KIND_IN_FORCE, KIND_REFUSED = 1, 2, 3, 4
EFFECTIVE_ONLY, NOW = 1, 2  # flags

HELLO = struct.Struct("<2sBBBBBxQQQ")  # magic, version, kind, level, tracking, flags; permitted, effective, source
CONTEXT = struct.Struct("<2sBBBBxxQQQQQ")  # magic, version, kind, level, flags; sequence, at, permitted, effective, source
ANSWER = struct.Struct("<2sBBBBBx")  # magic, version, kind; level, tracking, flags or the reason
CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid

ALL_CAPABILITIES = 2**64 - 1  # as many as the kernel shows; only root's count
SCM_CREDENTIALS = getattr(socket, "SCM_CREDENTIALS", 2)
LONGEST_MESSAGE = 256 << 10

REASONS = {
    1: "the server does not let this client in",
    2: "the server says that this client broke the protocol",
    3: "the server does not speak this version of the protocol",
    4: "the server is out of file descriptors",
    5: "the server could not have the announced context proved",
    6: "the server needs a higher impersonation level than this client states",
}


class Refused(Exception):
    """The server said why it ended the connection."""

    def __init__(self, reason):
        super().__init__(REASONS.get(reason, "the server refused, for reason %d" % reason))
        self.reason = reason


class Pipe:
    """A connection to a pipe. Reading and writing may be done by two threads at once.

    A program that becomes somebody else calls changed() then, so that a server that is acting for it follows at once.

    A child of fork(2) can't use its parent's: it is another process, and the server would not believe it."""

    def __init__(self, path, level=UNSTATED, tracking=UNSTATED, effective_only=False):
        self.level, self.tracking = level, tracking
        self._flags = EFFECTIVE_ONLY if effective_only else 0
        self._pid = os.getpid()
        self._written = 0  # bytes, or messages on a pipe of messages; the preface does not count
        self._sequence = 0
        # Whom the server was told of: with what is written, and last.
        self._placed = self._last = who()
        self._lock = threading.Lock()
        self._socket, self.is_message = connect(path)
        try:
            self._control = self._open_channel()
        except BaseException:
            self._socket.close()
            raise

    def _open_channel(self):
        """Sends the preface: the byte G with the far end of the control channel, on which the hello is queued already."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            near.send(HELLO.pack(MAGIC, VERSION, KIND_HELLO, self.level, self.tracking, self._flags, ALL_CAPABILITIES, ALL_CAPABILITIES, 0))
            self._socket.sendmsg([b"G"], [rights(far)])
        except BaseException:
            near.close()
            raise
        finally:
            far.close()
        return near

    def write(self, data):
        """Writes data, on a pipe of messages as one message, after announcing who this process is if that has changed."""
        with self._lock:
            if os.getpid() != self._pid:
                raise RuntimeError("this pipe belongs to process %d" % self._pid)
            try:
                self._announce_with_write()
                if self.is_message:
                    self._socket.send(data)
                    self._written += 1
                else:
                    self._socket.sendall(data)
                    self._written += len(data)
            except (BrokenPipeError, ConnectionResetError):
                self._hear()
                raise

    def read(self, size=LONGEST_MESSAGE):
        """Reads what is there, on a pipe of messages one message. b"" is the end (or an empty message)."""
        try:
            data = self._socket.recv(size)
        except ConnectionResetError:
            self._hear()
            raise
        if not data:
            self._hear()
        return data

    def end(self):
        """Says that nothing more will be written; answers can still be read."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self):
        self._control.close()
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def changed(self):
        """Tells the server at once if this process has become somebody else, for what it is doing and will do for this client.

        It does not wait. It returns False if the server can't be told now, because it has not taken in what it was told
        before: call it again soon. Nothing is lost: the next write tells it, too."""
        with self._lock:
            if os.getpid() != self._pid:
                raise RuntimeError("this pipe belongs to process %d" % self._pid)
            if self.tracking == UNSTATED:
                self._hear()
            now = who()
            if self.tracking == STATIC or now == self._last:
                return True
            try:
                self._announce(now, NOW, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS:  # too many of this user's descriptors are under way
                    raise
                return False
            return True

    def _announce_with_write(self):
        if self.tracking == UNSTATED:
            self._hear()  # perhaps the server has said by now
        now = who()
        # The last counts as well: after changed() and a change back the server takes this process for another.
        if self.tracking == STATIC or now == self._placed == self._last:
            return
        self._announce(now, 0, self._written, 0)
        self._placed = now

    def _announce(self, now, flags, at, how):
        uid, gid, _ = now
        # The kernel freezes this process's effective ids and groups in a socket that it makes. That is the proof.
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with near, far:
            self._sequence += 1
            message = CONTEXT.pack(
                MAGIC, VERSION, KIND_CONTEXT, self.level, self._flags | flags,
                self._sequence, at, ALL_CAPABILITIES, ALL_CAPABILITIES, 0)
            claim = (socket.SOL_SOCKET, SCM_CREDENTIALS, CREDENTIALS.pack(self._pid, uid, gid))
            try:
                self._control.sendmsg([message], [claim, rights(far)], how)
            except (BrokenPipeError, ConnectionResetError):
                self._hear()
                if self.tracking == STATIC:
                    return
                raise
        self._last = now

    def _hear(self):
        """Takes in what the server has said on the control channel, without waiting."""
        while True:
            try:
                answer = self._control.recv(64, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # it closed its end with something unread; what it had said before is still there
            if not answer:
                return
            if len(answer) != ANSWER.size:
                raise ValueError("the server sent %d bytes that are no answer" % len(answer))
            magic, version, kind, a, tracking, _ = ANSWER.unpack(answer)
            if (magic, version) != (MAGIC, VERSION) or kind not in (KIND_IN_FORCE, KIND_REFUSED):
                raise ValueError("the server sent an answer that this client does not know")
            if kind == KIND_REFUSED:
                raise Refused(a)
            self.tracking = tracking


def who():
    """Who this process is to others: its effective ids and its groups."""
    return os.geteuid(), os.getegid(), tuple(os.getgroups())


def rights(sock):
    """The ancillary data that passes a descriptor."""
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()])


def connect(path):
    """Connects to the socket at path. Whether it is of bytes or of messages shows when connecting."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        s = socket.socket(socket.AF_UNIX, kind)
        try:
            s.connect(path)
            return s, kind == socket.SOCK_SEQPACKET
        except OSError as error:
            s.close()
            if error.errno != errno.EPROTOTYPE or kind == socket.SOCK_SEQPACKET:
                raise


def main():
    parser = argparse.ArgumentParser(description="Sends lines to a pipe and prints the answers.")
    parser.add_argument("--level", choices=sorted(LEVELS))
    parser.add_argument("--tracking", choices=sorted(TRACKINGS))
    parser.add_argument("--effective-only", action="store_true")
    parser.add_argument("path", metavar="PATH")
    args = parser.parse_args()

    def send(pipe):
        try:
            for line in sys.stdin.buffer:
                pipe.write(line)
            pipe.end()
        except (Refused, OSError):
            pass  # reading finds out why

    try:
        with Pipe(args.path, LEVELS.get(args.level, UNSTATED), TRACKINGS.get(args.tracking, UNSTATED), args.effective_only) as pipe:
            threading.Thread(target=send, args=(pipe,), daemon=True).start()
            while answer := pipe.read():
                sys.stdout.buffer.write(answer)
                sys.stdout.buffer.flush()
    except (Refused, OSError) as error:
        print("%s: %s" % (args.path, error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
