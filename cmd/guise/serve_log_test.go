package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/guise-project/guise/internal/testdir"
)

func TestServeLogJSON(t *testing.T) {
	needRoot(t)
	path := filepath.Join(testdir.Open(t, 0o755), "pipe")
	s := startOnly(t, path, guiseProgram(t, "serve", "--log", "json", path, "--", "sh", "-c", "exit 3"))
	s.waitLog(`"msg":"listening"`)
	run(t, "", as(alice, guiseProgram(t, "call", path)))
	var line struct {
		Level, Msg, Pipe, Client, Account string
		UID, GID, PID, Status             int
		QoS                               struct{ Level, Tracking string }
		Duration                          float64
	}
	if err := json.Unmarshal([]byte(s.waitLog(`"client served"`)), &line); err != nil {
		t.Fatal(err)
	}
	if line.Level != "INFO" || line.Pipe != path || line.Client != "61001 groups=61001,61005" || line.Account != "61001" || line.UID != alice ||
		line.GID != alice || line.PID == 0 || line.Status != 3 || line.QoS.Level != "impersonation" || line.QoS.Tracking != "static" {
		t.Errorf("the client's line says %+v", line)
	}
	if line.Duration <= 0 || line.Duration > patience.Seconds() {
		t.Errorf("the client took %v seconds by its line", line.Duration)
	}
}

// journald is what listens where systemd's journal does, for servers that it starts.
type journald struct {
	t      *testing.T
	socket *net.UnixConn
	path   string
}

func newJournald(t *testing.T) *journald {
	t.Helper()
	needRoot(t)
	path := filepath.Join(testdir.Open(t, 0o755), "journal")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return &journald{t, socket, path}
}

// serve starts a server in a mount namespace with this journal.
func (j *journald) serve(before string, args ...string) *serving {
	j.t.Helper()
	unshare := needProgram(j.t, "/usr/bin/unshare")
	path := filepath.Join(testdir.Open(j.t, 0o755), "pipe")
	command := guiseProgram(j.t)
	command.Path = unshare
	command.Args = append([]string{unshare, "-m", "sh", "-c", `
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && : >/run/systemd/journal/socket &&
mount --bind "$0" /run/systemd/journal/socket || exit
` + before + `
exec "$@"`, j.path, program(j.t), "serve"}, args...)
	for i, a := range command.Args {
		if a == "PATH" {
			command.Args[i] = path
		}
	}
	return startOnly(j.t, path, command)
}

// wait reads entries until there is one whose message begins so, and returns its fields.
func (j *journald) wait(message string) map[string]string {
	j.t.Helper()
	j.socket.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 64<<10)
	var heard []string
	for {
		n, err := j.socket.Read(buf)
		if err != nil {
			j.t.Fatalf("the journal got no %q: %v; it got %q", message, err, heard)
		}
		fields := journalFields(j.t, string(buf[:n]))
		heard = append(heard, fields["MESSAGE"])
		if strings.HasPrefix(fields["MESSAGE"], message) {
			return fields
		}
	}
}

// journalFields understands an entry of the journal's native protocol.
func journalFields(t *testing.T, entry string) map[string]string {
	t.Helper()
	fields := make(map[string]string)
	for entry != "" {
		line, rest, ok := strings.Cut(entry, "\n")
		if !ok {
			t.Fatalf("the entry ends in the middle of a line: %q", entry)
		}
		name, value, short := strings.Cut(line, "=")
		if !short { // its length is next
			if len(rest) < 8 {
				t.Fatalf("the field %s has no length: %q", name, entry)
			}
			length := binary.LittleEndian.Uint64([]byte(rest[:8]))
			value, rest = rest[8:8+length], rest[8+length+1:]
		}
		fields[name] = value
		entry = rest
	}
	return fields
}

func TestServeLogJournal(t *testing.T) {
	for name, c := range map[string]struct {
		before string
		flags  []string
	}{
		"asked for": {"", []string{"--log", "journal"}},
		// As systemd does for a service whose standard error goes there.
		"found": {`JOURNAL_STREAM=$(stat -Lc %d:%i /dev/fd/2); export JOURNAL_STREAM`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJournald(t)
			s := j.serve(c.before, append(c.flags, "PATH", "--", "sh", "-c", "echo 'of the command' >&2; exit 3")...)
			j.wait("listening")
			run(t, "", as(alice, guiseProgram(t, "call", s.path)))
			fields := j.wait("command's standard error ")
			for field, want := range map[string]string{"PRIORITY": "6", "GUISE_PIPE": s.path, "GUISE_UID": "61001", "GUISE_LINE": "of the command"} {
				if fields[field] != want {
					t.Errorf("what the command wrote has the field %s as %q, want %q", field, fields[field], want)
				}
			}
			fields = j.wait("client served")
			for field, want := range map[string]string{
				"PRIORITY": "6", "SYSLOG_IDENTIFIER": "guise", "GUISE_PIPE": s.path, "GUISE_CLIENT": "61001 groups=61001,61005", "GUISE_ACCOUNT": "61001",
				"GUISE_UID": "61001", "GUISE_GID": "61001", "GUISE_QOS_LEVEL": "impersonation", "GUISE_QOS_EFFECTIVE_ONLY": "false", "GUISE_STATUS": "3",
			} {
				if fields[field] != want {
					t.Errorf("the field %s is %q, want %q", field, fields[field], want)
				}
			}
			if !hasAll(fields["MESSAGE"], []string{`client="61001 groups=61001,61005"`, "status=3", "duration="}) {
				t.Errorf("the message is %q", fields["MESSAGE"])
			}
			// The library's lines go there too.
			run(t, "", as(alice, guiseProgram(t, "call", "--level", "anonymous", s.path)))
			if fields := j.wait("connection ended"); fields["PRIORITY"] != "4" || fields["GUISE_PIPE"] != s.path {
				t.Errorf("what the library says has the fields %q", fields)
			}
			s.stop()
			j.wait("ended")
			if s.hasLog("listening") || s.hasLog("of the command") {
				t.Error("the log went to standard error too")
			}
		})
	}
	t.Run("standard error goes elsewhere", func(t *testing.T) {
		j := newJournald(t)
		j.serve(`JOURNAL_STREAM=1:1; export JOURNAL_STREAM`, "PATH", "--", "true").waitLog("msg=listening")
	})
}

func TestServeNoJournal(t *testing.T) {
	needRoot(t)
	unshare := needProgram(t, "/usr/bin/unshare")
	command := guiseProgram(t)
	command.Path = unshare
	command.Args = []string{unshare, "-m", "sh", "-c", `mount -t tmpfs tmpfs /run && exec "$@"`, "sh", program(t), "serve", "--log", "journal", "/tmp/x", "--", "cat"}
	if r := run(t, "", command); r.status != statusFailed || !strings.Contains(r.err, "--log text") {
		t.Errorf("--log journal without a journal: exit status %d, want %d and what to do: %s", r.status, statusFailed, r.err)
	}
}

func TestJournalFields(t *testing.T) {
	h := (&journalHandler{}).WithAttrs([]slog.Attr{slog.String("pipe", "p")}).WithGroup("one").WithAttrs([]slog.Attr{slog.Int("n", 1)}).(*journalHandler)
	got := appendFields(h.fields, h.prefix, slog.Group("two", slog.Bool("effectiveOnly", true), slog.Any("error", fmt.Errorf("a\nb"))))
	want := []field{{"pipe", "p"}, {"one.n", "1"}, {"one.two.effectiveOnly", "true"}, {"one.two.error", "a\nb"}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the fields are %q, want %q", got, want)
	}
	if got, want := journalName("one.two.effectiveOnly"), "GUISE_ONE_TWO_EFFECTIVE_ONLY"; got != want {
		t.Errorf("a field is called %s, want %s", got, want)
	}
	for plain, want := range map[string]string{"a": "a", "": `""`, "a b": `"a b"`, "a\nb=c": `"a\nb=c"`, "\x1b[2J": `"\x1b[2J"`, "\xff": `"\xff"`} {
		if got := quoteUnlessPlain(plain); got != want {
			t.Errorf("%q is written %s, want %s", plain, got, want)
		}
	}
}
