package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/ratio"
	"github.com/guise-project/guise/bench/internal/role"
)

const (
	crowdClients = 5000 // connections, each of which asks once a second
	crowdUsers   = 50   // processes, each of another user
	crowdFor     = 60 * time.Second
	crowdUID     = 61100
)

// crowdAnswers is what a process of clients found.
type crowdAnswers struct {
	Took   []int64 // microseconds from when a request was due to its answer
	Failed []string
}

// measureCrowd measures a server with many clients that ask now and then: each request is done as its client, on a file that only this
// one can read.
func measureCrowd(dir string, tracking guise.Tracking) ([]ratio.Row, error) {
	dir = filepath.Join(dir, "crowd-"+tracking.String())
	if err := os.Mkdir(dir, 0o711); err != nil {
		return nil, err
	}
	pipe := filepath.Join(dir, "pipe")
	server, err := role.Start(nil, nil, "crowd-server", pipe)
	if err != nil {
		return nil, err
	}
	defer server.Stop()
	if _, err := server.Line(); err != nil {
		return nil, err
	}
	alone, err := residentBytesOf(server.PID())
	if err != nil {
		return nil, err
	}
	var clients []*role.Process
	for user := range crowdUsers {
		p, err := startCrowdClient(dir, pipe, tracking, user)
		if err != nil {
			return nil, err
		}
		defer p.Stop()
		clients = append(clients, p)
	}
	for _, p := range clients {
		if _, err := p.Line(); err != nil {
			return nil, err
		}
	}
	connected, err := residentBytesOf(server.PID())
	if err != nil {
		return nil, err
	}
	before, err := cpuTimes(server, clients)
	if err != nil {
		return nil, err
	}
	begin := now() + int64(time.Second)
	for _, p := range clients {
		if _, err := fmt.Fprintln(p, begin); err != nil {
			return nil, err
		}
	}
	var all crowdAnswers
	for _, p := range clients {
		line, err := p.Line()
		if err != nil {
			return nil, err
		}
		var found crowdAnswers
		if err := json.Unmarshal([]byte(line), &found); err != nil {
			return nil, err
		}
		all.Took, all.Failed = append(all.Took, found.Took...), append(all.Failed, found.Failed...)
	}
	spent, err := cpuTimes(server, clients)
	if err != nil {
		return nil, err
	}
	asking, err := residentBytesOf(server.PID())
	if err != nil {
		return nil, err
	}
	if len(all.Failed) > 0 {
		fmt.Fprintln(os.Stderr, "bench: of the crowd's requests failed, the first with:", all.Failed[0])
	}
	ms := make([]float64, len(all.Took))
	for i, µs := range all.Took {
		ms[i] = float64(µs) / 1e3
	}
	slices.Sort(ms)
	share := func(i int) float64 { return 100 * float64(spent[i]-before[i]) / float64(crowdFor) }
	mib := func(bytes int64) float64 { return float64(bytes) / (1 << 20) }
	what := fmt.Sprintf("%d clients (%s), each once a second for %v: ", crowdClients, tracking, crowdFor)
	count := func(w string, atMost, n float64) ratio.Row {
		return ratio.Row{What: what + w, AtMost: atMost, Median: n}
	}
	return []ratio.Row{
		count("requests that failed", 0, float64(len(all.Failed))),
		count("requests that were not made or answered", 0, float64(crowdClients*int(crowdFor/time.Second)-len(all.Took)-len(all.Failed))),
		ratio.State(what+"answered after", ms, "ms"),
		count("99 of 100 answered within, ms", ratio.Information, ratio.Quantile(ms, 0.99)),
		count("CPU time, server, % of one CPU", ratio.Information, share(0)),
		count("CPU time, all clients, % of one CPU", ratio.Information, share(1)),
		count("resident memory, server, connected, MiB", ratio.Information, mib(connected)),
		count("resident memory, server, after all, MiB", ratio.Information, mib(asking)),
		count("of it per client, KiB", ratio.Information, float64(asking-alone)/crowdClients/1024),
	}, nil
}

func startCrowdClient(dir, pipe string, tracking guise.Tracking, user int) (*role.Process, error) {
	uid := crowdUID + user
	file := filepath.Join(dir, strconv.Itoa(uid))
	if err := os.WriteFile(file, crowdContents(uid), 0o600); err != nil {
		return nil, err
	}
	if err := os.Chown(file, uid, uid); err != nil {
		return nil, err
	}
	attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	return role.Start(attr, nil, "crowd-client", pipe, file, tracking.String(), strconv.Itoa(user))
}

// crowdContents is what is in a user's file.
func crowdContents(uid int) []byte { return fmt.Appendf(nil, "%063d\n", uid) }

// cpuTimes returns the server's and all clients'.
func cpuTimes(server *role.Process, clients []*role.Process) (times [2]time.Duration, err error) {
	if times[0], err = cpuTime(server.PID()); err != nil {
		return times, err
	}
	for _, p := range clients {
		t, err := cpuTime(p.PID())
		if err != nil {
			return times, err
		}
		times[1] += t
	}
	return times, nil
}

// serveCrowd is the role of the server: what is asked for is read as who asks.
func serveCrowd(args []string) error {
	l, err := guise.Listen(args[0], nil)
	if err != nil {
		return err
	}
	defer l.Close()
	go role.ServeFiles(l)
	fmt.Println("listening")
	role.AwaitEnd()
	return nil
}

// askInCrowd is the role of a process with one user's clients.
func askInCrowd(args []string) error {
	pipe, file := args[0], args[1]
	qos := &guise.QoS{Tracking: guise.Static}
	if args[2] == guise.Dynamic.String() {
		qos.Tracking = guise.Dynamic
	}
	user, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	const each = crowdClients / crowdUsers
	conns := make([]*guise.Conn, each)
	for i := range conns {
		if conns[i], err = guise.Dial(pipe, qos); err != nil {
			return err
		}
		defer conns[i].Close()
	}
	fmt.Println("connected")
	var line string
	if _, err := fmt.Scanln(&line); err != nil {
		return err
	}
	begin, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		return err
	}
	answers := make([]crowdAnswers, each)
	var all sync.WaitGroup
	for i, c := range conns {
		all.Go(func() {
			// All clients' requests are spread over the second.
			due := begin + int64(time.Second)*int64(i*crowdUsers+user)/crowdClients
			for range int(crowdFor / time.Second) {
				time.Sleep(time.Duration(due - now()))
				if err := askAs(c, file, crowdContents(os.Getuid())); err != nil {
					answers[i].Failed = append(answers[i].Failed, err.Error())
					return
				}
				answers[i].Took = append(answers[i].Took, (now()-due)/1e3)
				due += int64(time.Second)
			}
		})
	}
	all.Wait()
	var found crowdAnswers
	for _, a := range answers {
		found.Took, found.Failed = append(found.Took, a.Took...), append(found.Failed, a.Failed...)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		return err
	}
	role.AwaitEnd()
	return nil
}

func askAs(c *guise.Conn, file string, contents []byte) error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte(file)); err != nil {
		return err
	}
	answer := make([]byte, len(contents))
	for n := 0; n < len(answer); {
		m, err := c.Read(answer[n:])
		if n += m; err != nil {
			return err
		}
	}
	if string(answer) != string(contents) {
		return fmt.Errorf("the answer is %q, in the file is %q", answer, contents)
	}
	return nil
}
