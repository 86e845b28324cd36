// Package callers has what the tests of the adapters share: users who call, and files that show as whom a server has acted.
package callers

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/features"
	"github.com/guise-project/guise/internal/testdir"
	"github.com/guise-project/guise/token"
)

// NeedRoot skips the test without root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("acting as others takes root")
	}
}

// NeedDynamic skips the test without root, or where the kernel has no dynamic tracking.
func NeedDynamic(t testing.TB) {
	t.Helper()
	NeedRoot(t)
	if err := features.DynamicTracking(); err != nil {
		t.Skip(err)
	}
}

// User returns the token of an account that needs no entry in /etc/passwd.
func User(t testing.TB, uid uint32) *token.Token {
	t.Helper()
	who, err := token.FromIDs(uid, uid, nil)
	if err != nil {
		t.Fatal(err)
	}
	return who
}

// As calls fn in a scope of who, or outside of every scope if that is nil. An error fails the test, which goes on.
func As(t testing.TB, who *token.Token, fn func() error) {
	t.Helper()
	err := error(nil)
	if who == nil {
		err = fn()
	} else {
		err = guise.RunAs(who, func(*guise.Scope) error { return fn() })
	}
	if err != nil {
		t.Errorf("as %v: %v", who, err)
	}
}

// Create makes a file and returns its owner's uid as the kernel shows it.
func Create(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	return fmt.Sprint(info.Sys().(*syscall.Stat_t).Uid), nil
}

// Silent returns both ends of a pipe on which a client that does not know guise has not sent anything yet.
func Silent(t testing.TB) (client net.Conn, server *guise.Conn) {
	t.Helper()
	l, err := guise.Listen(filepath.Join(testdir.Open(t, 0o755), "pipe"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if client, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = l.AcceptPipe(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}
