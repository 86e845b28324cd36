package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/cloudsoda/go-smb2"
	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/credentials"

	"github.com/guise-project/guise/bench/internal/ratio"
	"github.com/guise-project/guise/smb"
)

const (
	dialRounds = 100
	// afterDial is how long a session has for being taken down, on the same CPU, before the next.
	afterDial = 10 * time.Millisecond
	// recorded is the pipe that smbd's handshake is taken down from.
	recorded = "recorded"
)

// dial states how long opening a pipe with Kerberos takes, and with what.
func (s *site) dial() ([]ratio.Row, error) {
	some, err := s.login()
	if err != nil {
		return nil, err
	}
	handshake, err := s.startListening("machines-handshake", s.server.NP)
	if err != nil {
		return nil, err
	}
	defer handshake.Stop()
	p, err := s.start(s.client, "machines-dial", s.server.Host, some[0], some[1])
	if err != nil {
		return nil, err
	}
	var rows, shaken []ratio.Row
	if err := results(p, &rows); err != nil {
		return nil, err
	}
	if _, err := handshake.Write([]byte{'x'}); err != nil {
		return nil, err
	}
	err = results(handshake, &shaken)
	return append(rows, shaken...), err
}

// login leaves the user with two credential caches: with the server's ticket, and with nothing but the one for getting others.
func (s *site) login() (caches [2]string, err error) {
	ctx := context.Background()
	if err := s.client.Login(ctx, user.Name, time.Hour); err != nil {
		return caches, err
	}
	caches = [2]string{fmt.Sprintf("/tmp/krb5cc_%d", user.UID), "/tmp/fresh"}
	const script = `set -e; cp "$1" "$2"; chmod 0600 "$2"; kvno "$3" >/dev/null`
	out, err := s.client.CommandAs(ctx, user.Name, "/bin/sh", "-c", script, "sh", caches[0], caches[1], principal(s.server.Host)).CombinedOutput()
	if err != nil {
		return caches, fmt.Errorf("getting the server's ticket by kvno: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return caches, nil
}

func principal(host string) string { return "cifs/" + host }

// dialSteps opens a pipe and returns how long each step took, in milliseconds. What it opened is closed by the function.
type dialSteps func() (took []float64, end func(), err error)

// measureMachinesDial is the role of a client that opens pipes with Kerberos. Its arguments are the server and the two caches.
func measureMachinesDial(args []string) error {
	host := args[0]
	alone, err := memoryTickets(args[1])
	if err != nil {
		return err
	}
	kinds := []dialSteps{
		dialWith(host, args[1], withGuise),
		dialWith(host, args[1], bare),
		dialWith(host, args[2], withGuise),
		plainSteps(host, alone, withGuise),
		plainSteps(host, alone, bare),
	}
	// So that smbd's handshake is taken down.
	if _, end, err := plainSteps(host, alone, recorded)(); err != nil {
		return err
	} else {
		end()
	}
	times := make([][][]float64, len(kinds)) // by kind, step and round
	for round := range dialRounds + ratio.WarmUp {
		for k := range kinds {
			i := k
			if round%2 == 1 {
				i = len(kinds) - 1 - k
			}
			took, end, err := kinds[i]()
			if err != nil {
				return err
			}
			end()
			time.Sleep(afterDial)
			if round < ratio.WarmUp {
				continue
			}
			if times[i] == nil {
				times[i] = make([][]float64, len(took))
			}
			for step, t := range took {
				times[i][step] = append(times[i][step], t)
			}
		}
	}
	dialled, toBare, fresh, guiseSteps, bareSteps := times[0][0], times[1][0], times[2][0], times[3], times[4]
	sambas := add(add(bareSteps[0], bareSteps[1]), bareSteps[2])
	return ratio.Print([]ratio.Row{
		ratio.State("smb.Dial of a guise pipe with Kerberos, the ticket in the cache", dialled, "ms"),
		ratio.State("the same, the ticket from the KDC", fresh, "ms"),
		ratio.State("of it: the KDC's answer, and asking", ratio.Subtract(fresh, dialled), "ms"),
		ratio.State("of it, go-smb2 alone: TCP, negotiation, logon", bareSteps[0], "ms"),
		ratio.State("of it, go-smb2 alone: tree", bareSteps[1], "ms"),
		ratio.State("of it, go-smb2 alone: opening a bare daemon's pipe", bareSteps[2], "ms"),
		ratio.State("of it, guise's client: smb.Dial without go-smb2 alone, to a bare daemon", ratio.Subtract(toBare, sambas), "ms"),
		ratio.State("of it, guise's server: opening its pipe without a bare daemon's", ratio.Subtract(guiseSteps[2], bareSteps[2]), "ms"),
		ratio.Compare("smb.Dial of a guise pipe : go-smb2 alone of a bare daemon's, ticket at hand", ratio.Information, dialled, sambas, "ms"),
	})
}

// dialWith opens a pipe by package smb with a credential cache.
func dialWith(host, cache, kind string) dialSteps {
	return func() ([]float64, func(), error) {
		if err := os.Setenv("KRB5CCNAME", "FILE:"+cache); err != nil {
			return nil, nil, err
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		begun := time.Now()
		c, err := smb.Dial(ctx, pipeName(host, pipeOf(kind)), nil)
		if err != nil {
			return nil, nil, err
		}
		return []float64{milliseconds(begun)}, func() { c.Close() }, nil
	}
}

// pipeOf returns the pipe of a kind of daemon.
func pipeOf(kind string) string {
	if kind == recorded {
		return kind
	}
	return kind + "-" + inBytes
}

// plainSteps opens a pipe by go-smb2 alone: logging on, the tree, and the pipe.
func plainSteps(host string, tickets *client.Client, kind string) dialSteps {
	return func() ([]float64, func(), error) {
		var took []float64
		begun := time.Now()
		s, err := logOn(host, &smb2.Krb5Initiator{Client: tickets, TargetSPN: principal(host)})
		if err != nil {
			return nil, nil, err
		}
		took = append(took, milliseconds(begun))
		begun = time.Now()
		err = s.mount(host)
		took = append(took, milliseconds(begun))
		if err == nil {
			begun = time.Now()
			_, err = s.open(pipeOf(kind))
			took = append(took, milliseconds(begun))
		}
		if err != nil {
			s.close()
			return nil, nil, err
		}
		return took, s.close, nil
	}
}

// memoryTickets reads a cache once, so that what uses it does not.
func memoryTickets(cache string) (*client.Client, error) {
	c, err := credentials.LoadCCache(cache)
	if err != nil {
		return nil, err
	}
	conf, err := config.Load("/etc/krb5.conf")
	// Of [libdefaults] it does not know everything.
	if err != nil && !errors.As(err, new(config.UnsupportedDirective)) {
		return nil, err
	}
	return client.NewFromCCache(c, conf, client.DisablePAFXFAST(true))
}

func milliseconds(begun time.Time) float64 { return float64(time.Since(begun).Nanoseconds()) / 1e6 }

// add returns a+b, round by round.
func add(a, b []float64) []float64 {
	sum := make([]float64, len(a))
	for i := range a {
		sum[i] = a[i] + b[i]
	}
	return sum
}
