package guise_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

// TestFollowingStress has clients change at random while scopes that follow them come and go, nest, and start goroutines.
func TestFollowingStress(t *testing.T) {
	needRoot(t)
	const clients, scopes, last = 8, 16, 2500 * time.Millisecond
	l := listenOn(t, nil)
	back := listenOn(t, nil)
	go func() {
		for {
			c, err := back.AcceptPipe()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for buf := make([]byte, 64); ; {
					if n, err := c.Read(buf); n == 0 || err != nil {
						return
					}
					c.RunAsClient(func(*guise.Scope) error { return nil })
				}
			}()
		}
	}()
	deadline := time.Now().Add(last)
	var servers []*guise.Conn
	done := make(chan string, clients+scopes)
	allowed := func(i int) []*token.Token {
		base := uint32(61000 + 10*i)
		return []*token.Token{identity(t, base, base, base), identity(t, base+1, base, base), identity(t, base+2, base+2, base+2, base+3), identity(t, base+3, base)}
	}
	for i := range clients {
		p := play(t)
		p.become(allowed(i)[0])
		near, server := p.opens(l, dynamic)
		servers = append(servers, server)
		go func() { // what a client announces with its writes waits until they are read
			for buf := make([]byte, 64); ; {
				if n, err := server.Read(buf); n == 0 || err != nil {
					return
				}
			}
		}()
		go func() {
			for n := 0; time.Now().Before(deadline); n++ {
				p.become(allowed(i)[(n*7+n/3)%4])
				if n%16 == 0 {
					p.do(func() { near.Write([]byte("y")) })
				}
			}
			p.become(allowed(i)[0])
			done <- ""
		}()
	}
	for n := range scopes {
		i := n % clients
		server := servers[i]
		go func() {
			mine := uint32(61000 + 10*i)
			var wrong string
			look := func() {
				if uid := uint32(unix.Geteuid()); uid < mine || uid > mine+3 {
					wrong = fmt.Sprintf("in a scope of client %d the thread is uid %d", i, uid)
				}
			}
			for wrong == "" && time.Now().Before(deadline) {
				err := server.RunAsClient(func(s *guise.Scope) error {
					for range 20 {
						look()
					}
					if n%2 == 0 {
						guise.RunAs(identity(t, mine+3, mine), func(*guise.Scope) error { look(); return nil })
					}
					if n%3 == 0 {
						s.Go(func() error {
							if uid := uint32(unix.Geteuid()); uid < mine || uid > mine+3 {
								return fmt.Errorf("a goroutine of client %d's scope is uid %d", i, uid)
							}
							return nil
						})
					}
					if n%4 == 0 {
						hop, err := guise.Dial(back.Addr().String(), dynamic)
						if err != nil {
							return err
						}
						defer hop.Close()
						hop.Write([]byte("x"))
					}
					look()
					return nil
				})
				if err != nil {
					wrong = err.Error()
				}
				if uid := unix.Geteuid(); uid != 0 {
					wrong = fmt.Sprintf("out of the scope the thread is uid %d", uid)
				}
			}
			done <- wrong
		}()
	}
	for range clients + scopes {
		select {
		case wrong := <-done:
			if wrong != "" {
				t.Error(wrong)
			}
		case <-time.After(last + 2*patience):
			t.Fatal("clients that change and scopes that follow them wait for each other")
		}
	}
	for i, server := range servers {
		inside(t, server, func(*guise.Scope) { becomes(t, fmt.Sprintf("after all changes of client %d", i), allowed(i)[0]) })
	}
}
