package crossing

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/internal/machines"
	"github.com/guise-project/guise/internal/machinestest"
)

// impacket is a client that has nothing to do with guise, nor with Go.
const impacket = `
import os, sys
os.environ["KRB5CCNAME"] = "/tmp/krb5cc_61001"
from impacket.smbconnection import SMBConnection
host, pipe, password, text, how, answer = sys.argv[1:]
c = SMBConnection(host, host)
if how == "Kerberos":
    c.kerberosLogin("alice", "", "GUISE.TEST", kdcHost="192.0.2.1")
else:
    c.login("alice", password)
t = c.connectTree("IPC$")
f = c.openFile(t, "\\" + pipe)
c.writeFile(t, f, text.encode())
sys.stdout.write(c.readFile(t, f, bytesToRead=60000, singleCall=True).decode())
c.closeFile(t, f)
c.logoff()
`

// libsmbclient is Samba's library for clients, which is what file managers use. It reads until it has as much as it was told to.
const libsmbclient = `
import ctypes, os, sys
host, pipe, password, text, how, answer = sys.argv[1:]
l = ctypes.CDLL("libsmbclient.so.0", use_errno=True)
def check(ok):
    if not ok:
        e = ctypes.get_errno()
        sys.exit("%d %s" % (e, os.strerror(e)))
def put(buffer, size, value):
    ctypes.memmove(buffer, value.encode() + b"\0", min(size, len(value) + 1))
@ctypes.CFUNCTYPE(None, *[ctypes.c_char_p] * 2, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
def who(server, share, group, n_group, user, n_user, secret, n_secret):
    put(user, n_user, "alice")
    put(secret, n_secret, "" if how == "Kerberos" else password)
for f in ["smbc_new_context", "smbc_init_context", "smbc_set_context"]:
    getattr(l, f).restype = ctypes.c_void_p
c = ctypes.c_void_p(l.smbc_new_context())
check(c)
l.smbc_setFunctionAuthData(c, who)
if how == "Kerberos":
    l.smbc_setOptionUseKerberos(c, 1)
    l.smbc_setOptionFallbackAfterKerberos(c, 0)
check(l.smbc_init_context(c))
l.smbc_set_context(c)
f = l.smbc_open(("smb://%s/IPC$/%s" % (host, pipe)).encode(), os.O_RDWR, 0)
check(f >= 0)
b = text.encode()
check(l.smbc_write(f, b, ctypes.c_size_t(len(b))) == len(b))
b = ctypes.create_string_buffer(int(answer))
n = l.smbc_read(f, b, ctypes.c_size_t(len(b)))
check(n >= 0)
sys.stdout.write(b.raw[:n].decode())
l.smbc_close(f)
`

// TestStrangersAreServed has clients that are not Go's call a pipe of guise's.
func TestStrangersAreServed(t *testing.T) {
	clients := []struct {
		name, program, needs string
		encrypts             bool // if it can
	}{
		{"impacket", impacket, "import impacket", true},
		{"libsmbclient", libsmbclient, "import ctypes; ctypes.CDLL('libsmbclient.so.0')", false},
	}
	for _, protection := range []struct {
		name   string
		config machines.Config
	}{{"signing required", machines.Config{Sign: true}}, {"encryption required", machines.Config{Encrypt: true}}} {
		stage := newStage(t, protection.config)
		for _, client := range clients {
			for _, how := range []string{"Kerberos", "NTLM"} {
				for _, mode := range []string{"bytes", "messages"} {
					t.Run(strings.Join([]string{protection.name, client.name, how, mode}, "/"), func(t *testing.T) {
						has(t, client.needs)
						playing(t, stage, Variant{Encrypt: client.encrypts}, func(p *play) { p.stranger(client.program, how, mode == "messages") })
					})
				}
			}
		}
	}
}

// has skips the test if Debian's Python can't do something, or fails it where it has to.
func has(t *testing.T, needs string) {
	t.Helper()
	cmd := systemPython(needs)
	out, err := cmd.CombinedOutput()
	if err != nil {
		machinestest.Missing(t, fmt.Sprintf("/usr/bin/python3 can't %s: %v: %s", needs, err, out))
	}
}

func (p *play) stranger(program, how string, messages bool) {
	b := p.serve(B, 3, func(o *actor.Order) { o.Message = messages })
	p.login(A, 1)
	if p.err != nil {
		return
	}
	from := p.machine(1)
	// impacket 0.10 does not ask for a service's ticket as MIT's KDC wants to be asked, so it finds one in the cache.
	if out, err := from.CommandAs(p.ctx, A.Account, "kvno", "cifs/"+b.on.Host).CombinedOutput(); err != nil {
		p.fail("getting a ticket by kvno: %w: %s", err, out)
		return
	}
	const question, answer = "what is mine?", "this is yours"
	cmd := from.CommandAs(p.ctx, A.Account, "/usr/bin/python3", "-c", program, b.on.Host, b.service.name, A.Password, question, how, fmt.Sprint(len(answer)))
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Start(); err != nil {
		p.fail("starting the client: %w", err)
		return
	}
	var accepted atomic.Bool
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		if !accepted.Load() {
			p.end() // the server would wait for a client, and none will come
		}
		ended <- err
	}()
	p.does(b, actor.Order{Act: actor.Accept, Pipe: b.service.path(), Conn: A.Name})
	accepted.Store(p.err == nil)
	if p.err != nil {
		p.err = fmt.Errorf("%w; the client ended before (%w) and said: %s", p.err, <-ended, said.String())
		return
	}
	got := p.does(b, actor.Order{Act: actor.Read, Conn: A.Name, Patience: within}).Text
	p.claim(got == question, "the server reads what the client wrote", "%q", got)
	a := &player{Person: A, on: from}
	p.impersonates(b, a)
	p.acts(b, A, "")
	p.origin(b, A, from)
	p.does(b, actor.Order{Act: actor.Write, Conn: A.Name, Text: answer, Patience: within})
	p.reverts(b)
	err := <-ended
	p.claim(err == nil && out.String() == answer, "the client reads what the server wrote", "%q (%v) %s", out.String(), err, said.String())
}
