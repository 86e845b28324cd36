package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/ratio"
	"github.com/guise-project/guise/bench/internal/role"
)

// A protocol is a way with a server and a client that are this program's.
type protocol struct {
	// serve is the server: it calls ready once clients may come, and returns when until does.
	serve func(dir string, ready func(), until func()) error
	// dial opens a client's connection.
	dial func(dir string) (connection, error)
}

// A connection is a client's.
type connection interface {
	// ask has the server read the file called name, and takes its answer, which is as long as answer.
	ask(name string, answer []byte) error
	close() error
}

var protocols = map[string]protocol{
	withGuise(guise.Static):       guiseWith(guise.Static),
	withGuise(guise.Dynamic):      guiseWith(guise.Dynamic),
	"by hand":                     byHand,
	"D-Bus, dbus-daemon":          overDBus(dbusDaemonSocket),
	"D-Bus, dbus-broker":          overDBus(dbusBrokerSocket),
	"gRPC":                        overGRPC(readAsServer),
	"gRPC, answering from memory": overGRPC(fromMemory),
}

// over is the way of a protocol. prepare starts what there is besides the two processes, or is nil.
func over(name string, prepare func(s *stage) (end func(), err error), needs ...string) way {
	return way{name: name, needs: needs, start: func(s *stage) (*running, error) {
		p := new(pair)
		if err := p.start(s, name, prepare); err != nil {
			p.ends.run()
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return &running{once: p.asking("once"), open: p.asking("open"), readsSecret: p.readsSecret, stop: p.ends.run}, nil
	}}
}

// pair is a server and its client.
type pair struct {
	client *role.Process
	ends   endings
}

func (p *pair) start(s *stage, name string, prepare func(s *stage) (end func(), err error)) error {
	if prepare != nil {
		end, err := prepare(s)
		if err != nil {
			return err
		}
		p.ends = append(p.ends, end)
	}
	for _, r := range []struct {
		role string
		attr *syscall.SysProcAttr
	}{
		{"server", nil},
		{"client", asAlice},
	} {
		process, err := role.Start(r.attr, nil, r.role, name, s.dir)
		if err != nil {
			return err
		}
		p.ends = append(p.ends, func() { process.Stop() })
		if _, err := process.Line(); err != nil {
			return err
		}
		p.client = process
	}
	return nil
}

// asking has the client do n requests; how is "once" or "open".
func (p *pair) asking(how string) ratio.Side {
	return func(n int) {
		if _, err := fmt.Fprintf(p.client, "%s %d\n", how, n); err != nil {
			role.Fatal(err)
		}
		if _, err := p.client.Line(); err != nil {
			role.Fatal(err)
		}
	}
}

func (p *pair) readsSecret() (bool, error) {
	if _, err := fmt.Fprintln(p.client, "secret 1"); err != nil {
		return false, err
	}
	line, err := p.client.Line()
	return line == "answered", err
}

// playServer is the role of a protocol's server. Its arguments are the protocol and the directory of all sockets.
func playServer(args []string) error {
	return protocols[args[0]].serve(args[1], func() { fmt.Println("listening") }, role.AwaitEnd)
}

// playClient is the role of a protocol's client. Its arguments are as the server's. Each line that it reads is how it is to ask and how
// often: "once" opens a connection for each request, "open" has one that stays, and "secret" is once, for a file that is not its own.
func playClient(args []string) error {
	p, dir := protocols[args[0]], args[1]
	fmt.Println("here")
	var open connection
	defer func() {
		if open != nil {
			open.close()
		}
	}()
	answer := make([]byte, len(contents))
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var how string
		var n int
		if _, err := fmt.Sscan(lines.Text(), &how, &n); err != nil {
			return err
		}
		if how == "secret" {
			fmt.Println(askForSecret(p, dir))
			continue
		}
		for range n {
			c := open
			if c == nil || how == "once" {
				var err error
				if c, err = p.dial(dir); err != nil {
					return err
				}
			}
			clear(answer)
			if err := c.ask(fileOf(dir), answer); err != nil {
				return err
			}
			if !bytes.Equal(answer, contents) {
				return errors.New("the answer is not what is in the file")
			}
			if how == "open" {
				open = c
			} else if err := c.close(); err != nil {
				return err
			}
		}
		fmt.Println("done")
	}
	return nil
}

// askForSecret returns "answered", or why not.
func askForSecret(p protocol, dir string) string {
	c, err := p.dial(dir)
	if err != nil {
		return err.Error()
	}
	defer c.close()
	answer := make([]byte, len(contents))
	if err := c.ask(secretOf(dir), answer); err != nil {
		return strings.ReplaceAll(err.Error(), "\n", " ")
	}
	if !bytes.Equal(answer, contents) {
		return "the answer is not what is in the file"
	}
	return "answered"
}
