package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/guise-project/guise/bench/internal/role"
	"github.com/guise-project/guise/internal/procevents"
)

const (
	// hung is how long a goroutine may do nothing: none waits for anything that takes longer than a scope's second.
	hung = 30 * time.Second
	// settleLimit is how long a thread in a scope may take to become its client's last identity. A lost signal takes for ever.
	settleLimit = 3 * time.Second
)

// followingRun is a run in which clients change and servers' scopes follow.
type followingRun struct {
	paths     paths
	board     board
	histories [clients]history
	servers   []*role.Process
	clients   []*role.Process
}

func runFollowing(ctx context.Context, duration time.Duration) (err error) {
	dir, err := workDirectory()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := &followingRun{paths: paths(dir)}
	if err := r.prepare(); err != nil {
		return err
	}
	fmt.Printf("%d clients change for %v, %d server goroutines in %d processes follow them, %d chains of %d among them\n",
		clients, duration, places, servers, chains, hops)
	if err := procevents.Available(); err != nil {
		fmt.Println("clients look at themselves all the time:", err)
	}
	defer r.kill()
	if err := r.start(); err != nil {
		return err
	}
	if err := r.run(ctx, duration); err != nil {
		return err
	}
	if err := r.settle(ctx); err != nil {
		return err
	}
	return r.finish()
}

// prepare makes everything that the processes share.
func (r *followingRun) prepare() error {
	if err := makeShared(r.paths.board(), boardLength); err != nil {
		return err
	}
	w, err := openShared(r.paths.board())
	if err != nil {
		return err
	}
	r.board = board{w}
	for i := range clients {
		if err := makeShared(r.paths.history(i), historyLength(statesOf(partOf(i)))); err != nil {
			return err
		}
		if w, err = openShared(r.paths.history(i)); err != nil {
			return err
		}
		r.histories[i] = history{w}
		for n := range uint32(fewIDs) {
			if err := r.makePrivate(i, n); err != nil {
				return err
			}
		}
	}
	for n := range places {
		dir := r.paths.files(n)
		if err := errors.Join(os.Mkdir(dir, 0o777), os.Chmod(dir, 0o777)); err != nil {
			return err
		}
	}
	return nil
}

func (r *followingRun) makePrivate(client int, n uint32) error {
	of, ofGroup := r.paths.private(client, n)
	owner := nth(client, n)
	return errors.Join(
		os.WriteFile(of, nil, 0o600), os.Chown(of, int(owner.uid), int(owner.gid)),
		os.WriteFile(ofGroup, nil, 0o600), os.Chown(ofGroup, 0, int(owner.group)), os.Chmod(ofGroup, 0o040))
}

func (r *followingRun) start() error {
	// The first race ends a process, and none waits for others at its end.
	env := []string{"GORACE=halt_on_error=1 atexit_sleep_ms=0"}
	for n := range servers {
		p, err := role.Start(nil, env, "server", string(r.paths), fmt.Sprint(n))
		if err != nil {
			return err
		}
		r.servers = append(r.servers, p)
	}
	for _, p := range r.servers {
		if _, err := p.Line(); err != nil {
			return err
		}
	}
	for n := range clients {
		p, err := role.Start(nil, env, "following client", string(r.paths), fmt.Sprint(n))
		if err != nil {
			return err
		}
		r.clients = append(r.clients, p)
	}
	return nil
}

// run waits for the time to pass, or for something to break.
func (r *followingRun) run(ctx context.Context, duration time.Duration) error {
	// That so many processes begin at once is no measure of anything.
	for begun, n := time.Now(), 0; n < places; time.Sleep(10 * time.Millisecond) {
		if err := r.look(ctx); err != nil {
			return err
		}
		if time.Since(begun) > hung {
			return fmt.Errorf("after %v the server goroutine %d has nothing to do yet", hung, n)
		}
		for n < places && r.board.place(n).lastAlive() != 0 {
			n++
		}
	}
	time.Sleep(time.Second / 2)
	r.board.setPhase(changing)
	var late lateness
	stopWatch := late.watch()
	defer func() {
		stopWatch()
		fmt.Printf("a thread that was to wake up did so %v late in the middle, p99 %v, %v at most\n",
			short(late.lags.quantile(0.5)), short(late.lags.quantile(0.99)), short(late.lags.Most))
	}()
	begun := time.Now()
	warm := false
	for time.Since(begun) < duration {
		if err := r.look(ctx); err != nil {
			return err
		}
		if !warm && time.Since(begun) > duration/4 {
			warm = true
			fmt.Println("memory after a quarter of the time:", r.memory())
		}
		time.Sleep(100 * time.Millisecond)
	}
	fmt.Println("memory after all of it:            ", r.memory())
	return nil
}

// look returns an error if the run can't go on.
func (r *followingRun) look(ctx context.Context) error {
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if r.board.failed() {
		time.Sleep(500 * time.Millisecond) // others may have something to say as well
		return errors.New("see above")
	}
	for n, p := range append(r.servers[:servers:servers], r.clients...) {
		if p.Ended() {
			return fmt.Errorf("a process ended before its time: %s", r.processName(n))
		}
	}
	for n := range places + clients {
		p := r.board.place(n)
		if p.lastAlive() == 0 || now()-p.lastAlive() < int64(hung) {
			continue
		}
		who, of := fmt.Sprintf("the server goroutine %d", n), serverOf(min(n, places-1))
		if n >= places {
			who, of = fmt.Sprintf("client %d (%v)", n-places, partOf(n-places)), servers+n-places
		}
		if n >= places { // it may be waiting for one of these
			for n := range servers {
				r.dump(n)
			}
		}
		r.dump(of)
		return fmt.Errorf("%s has done nothing for %v; above are the goroutines of its process and of those that it may wait for (%s)", who, hung, r.processName(of))
	}
	return nil
}

func (r *followingRun) processName(n int) string {
	if n < servers {
		return fmt.Sprintf("server process %d", n)
	}
	return fmt.Sprintf("client %d, %v", n-servers, partOf(n-servers))
}

// dump has a process print its goroutines and end.
func (r *followingRun) dump(n int) {
	p := append(r.servers[:servers:servers], r.clients...)[n]
	_ = p.Signal(syscall.SIGQUIT)
	for begun := time.Now(); !p.Ended() && time.Since(begun) < 10*time.Second; {
		time.Sleep(50 * time.Millisecond)
	}
}

// settle has clients stop changing, and waits until every server goroutine is in a scope and its thread has become the last that its
// client was.
func (r *followingRun) settle(ctx context.Context) error {
	r.board.setPhase(settling)
	begun := time.Now()
	for {
		var waiting []string
		for n := range places {
			if !r.board.place(n).settled() {
				waiting = append(waiting, fmt.Sprint(n))
			}
		}
		if len(waiting) == 0 {
			break
		}
		if err := r.look(ctx); err != nil {
			return err
		}
		// Before, a client may have had one more scope of a second, and a chain to enter.
		if time.Since(begun) > 5*settleLimit {
			return fmt.Errorf("clients have stopped changing, but after %v these server goroutines are not in a scope as the last that their clients were: %s",
				5*settleLimit, strings.Join(waiting, ", "))
		}
		time.Sleep(10 * time.Millisecond)
	}
	var most time.Duration
	for n := range places {
		most = max(most, time.Duration(r.board.place(n).settledAfter()))
	}
	fmt.Printf("when the clients had stopped, all %d threads in scopes were their clients' last identities, after %v at most\n", places, short(most))
	if most > settleLimit {
		return fmt.Errorf("a thread took %v to become its client's last identity, at most %v is right", most, settleLimit)
	}
	time.Sleep(300 * time.Millisecond) // and stay so
	return r.look(ctx)
}

// finish ends everything and hears what the servers have seen.
func (r *followingRun) finish() error {
	r.board.setPhase(finishing)
	var errs []error
	for n, p := range r.clients {
		if err := r.end(p, servers+n); err != nil {
			errs = append(errs, err)
		}
	}
	r.board.setPhase(reporting)
	var sum report
	for n, p := range r.servers {
		line, err := r.lineOf(p, n)
		var one report
		if err == nil {
			err = json.Unmarshal([]byte(line), &one)
		}
		if err == nil {
			sum.join(&one)
			fmt.Printf("server process %d: %d descriptors at the start and %d at the end\n", n, one.DescriptorsBefore, one.DescriptorsLeft)
			if one.Left != "" {
				err = errors.New(one.Left)
			}
		}
		if err := errors.Join(err, r.end(p, n)); err != nil {
			errs = append(errs, fmt.Errorf("server process %d: %w", n, err))
		}
	}
	var states uint64
	for _, h := range r.histories {
		states += h.last() + 1
	}
	fmt.Printf("%d states of clients, %d scopes, in which %d contexts were seen; %d files created, %d private ones opened and %d refused\n",
		states, sum.Scopes, sum.Changes, sum.Files, sum.Opened, sum.Refused)
	var operations uint64
	for n := range sum.Lags {
		fmt.Printf("  hop %d (bound %v): %v\n", n+1, behind(uint32(n+1)), &sum.Lags[n])
		operations += sum.Lags[n].Operations + sum.FloodLags[n].Operations
	}
	for n := range sum.FloodLags {
		fmt.Printf("  hop %d (bound %v), of clients that change as fast as they can: %v\n", n+1, behind(uint32(n+1)), &sum.FloodLags[n])
	}
	fmt.Printf("%d of %d operations were further behind than that; %d of them at a time when the machine had kept their processes waiting\n",
		sum.Stalled, operations, sum.Stalled-uint64(sum.Late))
	if sum.Untold > operations/1000 {
		errs = append(errs, fmt.Errorf("of %d operations %d could not be judged: histories are too short", operations, sum.Untold))
	}
	if sum.Late > 0 {
		errs = append(errs, fmt.Errorf("%d operations were further behind than the bound", sum.Late))
	}
	if r.board.failed() || sum.Errors > 0 {
		errs = append(errs, errors.New("see above"))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Println("passed: no operation was anybody's whom its client had ceased to be before the bound, or before the scope was entered; no thread or descriptor was left, no signal lost")
	return nil
}

// lineOf waits for a process's line as long as one may hang.
func (r *followingRun) lineOf(p *role.Process, n int) (line string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		line, err = p.Line()
	}()
	select {
	case <-done:
	case <-time.After(hung):
		r.dump(n)
		<-done
		err = fmt.Errorf("it did not come to an end in %v; above are its goroutines", hung)
	}
	return line, err
}

func (r *followingRun) end(p *role.Process, n int) error {
	done := make(chan error, 1)
	go func() { done <- p.Stop() }()
	select {
	case err := <-done:
		if err != nil {
			err = fmt.Errorf("%s: %w", r.processName(n), err)
		}
		return err
	case <-time.After(hung):
		_ = p.Signal(syscall.SIGQUIT)
		select {
		case <-done:
		case <-time.After(10 * time.Second):
		}
		return fmt.Errorf("%s did not end in %v; above are its goroutines", r.processName(n), hung)
	}
}

// kill ends what is still there.
func (r *followingRun) kill() {
	for _, p := range append(r.clients, r.servers...) {
		if !p.Ended() {
			_ = p.Signal(syscall.SIGKILL)
			_ = p.Stop()
		}
	}
}

// memory says what the servers and the greediest client have.
func (r *followingRun) memory() string {
	var b strings.Builder
	for n, p := range r.servers {
		fmt.Fprintf(&b, "server %d %s; ", n, sizeOf(p))
	}
	for n, p := range r.clients {
		if partOf(n).flood {
			fmt.Fprintf(&b, "client %d %s; ", n, sizeOf(p))
		}
	}
	return strings.TrimSuffix(b.String(), "; ")
}

// sizeOf returns what a process has of memory of its own, of threads and of descriptors.
func sizeOf(p *role.Process) string {
	proc := fmt.Sprintf("/proc/%d", p.PID())
	b, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return err.Error()
	}
	var kilobytes, threads int
	for line := range strings.Lines(string(b)) {
		_, _ = fmt.Sscanf(line, "RssAnon: %d kB", &kilobytes)
		_, _ = fmt.Sscanf(line, "Threads: %d", &threads)
	}
	open, _ := os.ReadDir(filepath.Join(proc, "fd"))
	return fmt.Sprintf("%d MB, %d threads, %d descriptors", kilobytes/1024, threads, len(open))
}

// lateness measures how busy the machine is: how long a thread waits that is to wake up.
type lateness struct{ lags lags }

// watch measures until the function that it returns is called.
func (l *lateness) watch() (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			default:
			}
			const nap = time.Millisecond
			begun := time.Now()
			time.Sleep(nap)
			l.lags.add(time.Since(begun) - nap)
		}
	}()
	return func() { close(end); <-ended }
}
