package main

import (
	"fmt"

	"github.com/guise-project/guise/bench/internal/ratio"
)

const (
	// One session of smbd's may be a little faster than another: so there are some.
	carriedSessions = 5
	carriedRounds   = 200 // of each
	carriedEach     = 8
)

// echo compares round trips to a guise server with those to a bare daemon.
func (s *site) echo() ([]ratio.Row, error) {
	var rows []ratio.Row
	for _, mode := range carriedModes {
		var found []ratio.Row
		p, err := s.start(s.client, "machines-echo", s.server.Host, mode)
		if err != nil {
			return nil, err
		}
		if err := results(p, &found); err != nil {
			return nil, err
		}
		rows = append(rows, found...)
	}
	return rows, nil
}

// measureMachinesEcho is the role of a client of both daemons. Its cheapest client is go-smb2 alone, which has both pipes open in one
// session: one smbd and one TCP connection carry both. What is compared takes turns in pairs: of more, the first and the last
// would go on after themselves more often than the others, in an smbd that is still warm.
func measureMachinesEcho(args []string) error {
	host, mode := args[0], args[1]
	times := make([][2][]float64, 3)
	for range carriedSessions {
		found, err := echoInSession(host, mode)
		if err != nil {
			return err
		}
		for i, pair := range found {
			for k := range pair {
				times[i][k] = append(times[i][k], pair[k]...)
			}
		}
	}
	what := fmt.Sprintf("%d B echo through smbd, %s, ", carried, mode)
	return ratio.Print([]ratio.Row{
		ratio.Compare(what+"guise : a bare daemon", 1.05, times[0][0], times[0][1], "µs"),
		ratio.Compare(what+"the same, opened by smb.Dial", ratio.Information, times[1][0], times[1][1], "µs"),
		ratio.Compare(what+"opened by smb.Dial : by go-smb2 alone", ratio.Information, times[2][0], times[2][1], "µs"),
	})
}

// echoInSession returns times of three pairs: of guise's and the bare daemon's pipe, opened by go-smb2, of the two opened by
// package smb, and of the bare daemon's, opened by package smb and by go-smb2.
func echoInSession(host, mode string) ([][][]float64, error) {
	session, err := logOn(host, ntlm())
	if err != nil {
		return nil, err
	}
	defer session.close()
	if err := session.mount(host); err != nil {
		return nil, err
	}
	var plain, dialled []ratio.Side
	for _, kind := range []string{withGuise, bare} {
		f, err := session.open(kind + "-" + mode)
		if err != nil {
			return nil, err
		}
		plain = append(plain, carriedTrips(&plainPipe{session, f}))
		c, err := dialPassword(host, kind+"-"+mode, mode)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		dialled = append(dialled, carriedTrips(c))
	}
	return [][][]float64{
		ratio.Alternate(carriedRounds, carriedEach, plain...),
		ratio.Alternate(carriedRounds, carriedEach, dialled...),
		ratio.Alternate(carriedRounds, carriedEach, dialled[1], plain[1]),
	}, nil
}
