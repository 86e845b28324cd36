package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

// userDemo shows what somebody without privilege can do: know who calls, keep to levels, and act as oneself.
func userDemo(out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "guise-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	listener, err := guise.Listen(filepath.Join(dir, "pipe"), nil)
	if err != nil {
		return err
	}
	defer listener.Close()

	fmt.Fprintf(out, "You are not root, so this shows what you can do alone. A service that acts for others holds CAP_SETUID and CAP_SETGID.\n\n")
	claims := &claims{out: out}
	for _, claim := range []struct {
		text  string
		check func(*guise.Listener) error
	}{
		{"before a client has said anything a server can't act as it", beforeAnythingWasRead},
		{"a server knows who calls, from the kernel", serverKnowsClient},
		{"a client that states level identification is known and not acted as", levelBinds},
		{"a server acts as a client whose context is its own", actAsOneself},
		{"a server without privilege can't act as anybody else", cannotActAsOthers},
	} {
		err := claim.check(listener)
		verdict := claims.verdict(err == nil)
		if err != nil {
			verdict += fmt.Sprintf(": %v", err)
		}
		fmt.Fprintf(out, "  %-70s %s\n", claim.text, verdict)
	}
	fmt.Fprintf(out, `
%d claims, %d were not as claimed.

What can't be shown without root, because it takes a client that changes its ids and servers that act as others: static and dynamic
tracking through a chain of servers, and how a server's rights change under its feet while it acts as a client that changes. For
that, run this as root.
`, claims.all, claims.wrong)
	if claims.wrong > 0 {
		return errNotAsClaimed
	}
	return nil
}

// withClient calls check with a server's end of a connection whose client stated qos and wrote text.
func withClient(l *guise.Listener, qos *guise.QoS, text string, check func(*guise.Conn) error) error {
	client, err := guise.Dial(l.Addr().String(), qos)
	if err != nil {
		return err
	}
	defer client.Close()
	server, err := l.AcceptPipe()
	if err != nil {
		return err
	}
	defer server.Close()
	if text != "" {
		if _, err := client.Write([]byte(text)); err != nil {
			return err
		}
		if _, err := server.Read(make([]byte, len(text))); err != nil {
			return err
		}
	}
	return check(server)
}

func want(err, target error) error {
	if !errors.Is(err, target) {
		return fmt.Errorf("got %v, want: %v", err, target)
	}
	return nil
}

func nothing(*guise.Scope) error { return nil }

// beforeAnythingWasRead connects by hand: guise's own clients say something at once.
func beforeAnythingWasRead(l *guise.Listener) error {
	silent, err := dialSilently(l.Addr().String())
	if err != nil {
		return err
	}
	defer silent.Close()
	server, err := l.AcceptPipe()
	if err != nil {
		return err
	}
	defer server.Close()
	return want(server.RunAsClient(nothing), guise.ErrNoDataRead)
}

func serverKnowsClient(l *guise.Listener) error {
	return withClient(l, nil, "hello", func(server *guise.Conn) error {
		client, err := server.Client()
		if err != nil {
			return err
		}
		if int(client.UID()) != os.Geteuid() || client.Source().PID != os.Getpid() {
			return fmt.Errorf("the kernel says it is %s, process %d", client, client.Source().PID)
		}
		return nil
	})
}

func levelBinds(l *guise.Listener) error {
	return withClient(l, &guise.QoS{Level: guise.Identification}, "hello", func(server *guise.Conn) error {
		if _, err := server.Client(); err != nil {
			return err
		}
		return want(server.RunAsClient(nothing), guise.ErrLevel)
	})
}

func actAsOneself(l *guise.Listener) error {
	return withClient(l, nil, "hello", func(server *guise.Conn) error {
		return server.RunAsClient(func(*guise.Scope) error {
			path := filepath.Join(filepath.Dir(l.Addr().String()), "made")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			uid, _, err := fileIDs(path)
			if err == nil && int(uid) != os.Geteuid() {
				err = fmt.Errorf("the file belongs to uid %d", uid)
			}
			return err
		})
	})
}

func cannotActAsOthers(*guise.Listener) error {
	other, err := token.FromIDs(uint32(os.Geteuid())+1, uint32(os.Getegid()), nil)
	if err != nil {
		return err
	}
	return want(guise.RunAs(other, nothing), guise.ErrPrivilege)
}
