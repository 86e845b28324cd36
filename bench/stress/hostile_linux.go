package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/bench/internal/ratio"
	"github.com/guise-project/guise/bench/internal/role"
)

// beside is whom the honest users have beside them.
type beside int

const (
	nobodyElse beside = iota
	spinning
	hostile
)

func (b beside) String() string {
	return [...]string{"alone", fmt.Sprintf("beside %d users who spin", hostileUsers), fmt.Sprintf("beside %d hostile users", hostileUsers)}[b]
}

// What is to be reached beside hostile users, of what it is beside those who spin.
const (
	leastRate = 0.5
	mostP99   = 4
)

// result is what a run gave.
type result struct {
	honest     accounts
	rates      map[string]float64
	goroutines map[string]int // of each server, when everybody had gone
}

// runHostile has honest users alone, beside users who spin, and beside hostile ones, each for a while. Of the hostile ones there may be
// only some.
func runHostile(ctx context.Context, guise string, duration time.Duration, only []int) error {
	guise, err := filepath.Abs(guise) // processes of the run begin at /
	if err != nil {
		return err
	}
	if err := standardLimits(); err != nil {
		return err
	}
	// What hostile users leave behind becomes this process's children, so that it can be found and ended.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	if left := hostileProcesses(); len(left) > 0 {
		return fmt.Errorf("there are processes of the uids of hostile users already, such as %d; end them first", left[0])
	}
	fmt.Printf("%d honest users and two servers, three times %v\n", honestUsers, duration)
	var results [3]result
	var errs []error
	for who := nobodyElse; who <= hostile; who++ {
		var err error
		results[who], err = runBeside(ctx, guise, duration, who, only)
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%v: %w", who, err))
		}
		for what, n := range results[who].goroutines {
			if n > results[nobodyElse].goroutines[what]+moreGoroutines {
				errs = append(errs, fmt.Errorf("%v: when all clients had gone, %s still had %d goroutines, and %d where honest users were alone", who, what, n, results[nobodyElse].goroutines[what]))
			}
		}
	}
	fmt.Println()
	printRuns(results)
	return errors.Join(errs...)
}

// standardLimits has all processes of the run begin with what systemd gives a service, and a login, where an administrator states
// nothing, or with what this machine has of it.
func standardLimits() error {
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	if err == nil {
		limit = syscall.Rlimit{Cur: min(limit.Max, 1024), Max: min(limit.Max, 524288)}
		err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	if err != nil {
		return fmt.Errorf("setting the limit of descriptors to systemd's: %w", err)
	}
	return nil
}

// runBeside is one run, with servers of its own.
func runBeside(ctx context.Context, guise string, duration time.Duration, who beside, only []int) (r result, err error) {
	dir, err := workDirectory()
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := besieged(dir)
	defer endHostile() // what guise serve may have started since
	if err := prepareFUSE(b); err != nil {
		return r, err
	}
	servers, err := startServers(b, guise)
	if err != nil {
		return r, err
	}
	defer servers.kill()
	users, err := startHonest(b)
	defer users.kill()
	if err != nil {
		return r, err
	}
	// By now each server has served somebody, and has what it needs for that.
	before := make(map[string]holdings)
	for what, pid := range servers.pids() {
		if before[what], err = holdingsOf(pid); err != nil {
			return r, err
		}
	}
	neighbours, err := startBeside(b, who, only)
	defer neighbours.end()
	if err != nil {
		return r, err
	}
	fmt.Printf("\n%v\n", who)
	users.tell("begin")
	whole := servers.watch(ctx, duration)
	users.tell("end")
	lasts := servers.lookOn()
	r.honest = users.report(ctx)
	neighbours.end()
	whole = errors.Join(whole, lasts())
	r.print(duration)
	neighbours.print()
	errs := []error{whole, r.check(servers.log)}
	if whole == nil {
		users.kill()
		r.goroutines, err = servers.checkLeft(ctx, before)
		errs = append(errs, err)
	}
	return r, errors.Join(errs...)
}

// watch lets the time pass, and returns an error if a server does not last so long.
func (s *besiegedServers) watch(ctx context.Context, duration time.Duration) error {
	for begun := time.Now(); time.Since(begun) < duration; time.Sleep(100 * time.Millisecond) {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if err := s.look(); err != nil {
			return fmt.Errorf("after %v: %w", time.Since(begun).Round(time.Second/10), err)
		}
	}
	return nil
}

// lookOn goes on looking while honest users wait for their last answers, until the function that it returns is called. If a server
// does not last both end, so that nobody waits for them.
func (s *besiegedServers) lookOn() (lasts func() error) {
	enough, result := make(chan struct{}), make(chan error)
	go func() {
		for !closed(enough) {
			if err := s.look(); err != nil {
				_ = s.library.Signal(syscall.SIGKILL)
				_ = s.serve.Process.Kill()
				result <- err
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		result <- nil
	}()
	return func() error { close(enough); return <-result }
}

// checkLeft looks for what clients have left in the servers, and returns how many goroutines each has. It ends guise serve.
func (s *besiegedServers) checkLeft(ctx context.Context, before map[string]holdings) (goroutines map[string]int, err error) {
	var errs []error
	for what, pid := range s.pids() {
		after, err := awaitHoldings(ctx, pid, before[what])
		fmt.Printf("  %s at first: %v; afterwards: %v, at most %d MB\n", what, before[what], after, after.peak>>20)
		if err != nil {
			errs = append(errs, fmt.Errorf("when all clients had gone, %s still had %w", what, err))
		}
	}
	library, serve, err := s.goroutines()
	goroutines = map[string]int{toServe: serve, toLibrary: library}
	fmt.Printf("  goroutines afterwards: %s %d, %s %d\n", toServe, serve, toLibrary, library)
	return goroutines, errors.Join(append(errs, err)...)
}

// print says how the honest requests went.
func (r *result) print(duration time.Duration) {
	r.rates = make(map[string]float64)
	for _, kind := range kinds {
		a := r.honest.of(kind)
		r.rates[kind] = float64(a.InTime) / duration.Seconds()
		if len(a.Took) == 0 {
			fmt.Printf("  %-32s none\n", kind)
			continue
		}
		fmt.Printf("  %-32s %8.1f a second; median %.1f ms, p99 %.1f ms, most %.1f ms; %d failed\n", kind, r.rates[kind],
			ratio.Median(a.Took), ratio.Quantile(a.Took, 0.99), slices.Max(a.Took), a.failed())
		for _, what := range slices.Sorted(maps.Keys(a.Failed)) {
			fmt.Printf("    %d times: %s\n", a.Failed[what], what)
		}
	}
}

// check returns an error for honest requests that went wrong, or that the log of guise serve does not have.
func (r *result) check(log *serveLog) error {
	var errs []error
	for _, kind := range kinds {
		if a := r.honest.of(kind); a.failed() > 0 || len(a.Took) == 0 {
			errs = append(errs, fmt.Errorf("%s: %d of %d honest requests failed", kind, a.failed(), len(a.Took)))
		}
	}
	answered := 0
	if a := r.honest[toServe]; a != nil {
		answered = len(a.Took) - a.failed() + honestUsers // each had one before
	}
	// A line is written once the client has gone.
	for begun := time.Now(); log.honestServed() < answered && time.Since(begun) < 10*time.Second; time.Sleep(50 * time.Millisecond) {
		if closed(log.finished) {
			break
		}
	}
	if logged := log.honestServed(); logged < answered {
		errs = append(errs, fmt.Errorf("guise serve's log has only %d of %d honest clients that were answered", logged, answered))
	}
	return errors.Join(errs...)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// printRuns prints the runs side by side.
func printRuns(runs [3]result) {
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "A SECOND, P99\tALONE\tSPINNING\tHOSTILE\tRATE, HOSTILE : SPINNING\tP99")
	for _, kind := range kinds {
		fmt.Fprintf(t, "%s", kind)
		for who := range runs {
			fmt.Fprintf(t, "\t%.1f, %.1f ms", runs[who].rates[kind], runs[who].p99(kind))
		}
		rate := runs[hostile].rates[kind] / runs[spinning].rates[kind]
		tail := runs[hostile].p99(kind) / runs[spinning].p99(kind)
		if runs[spinning].rates[kind] == 0 {
			fmt.Fprintln(t, "\t–\t–") // too short a time to say
			continue
		}
		fmt.Fprintf(t, "\t%.2f%s\t%.2f%s\n", rate, reached(rate >= leastRate), tail, reached(tail <= mostP99))
	}
	t.Flush()
	fmt.Printf("to be reached: rate %.2f at least, p99 %d at most\n", leastRate, mostP99)
}

func reached(is bool) string {
	if is {
		return ""
	}
	return " NO"
}

func (r *result) p99(kind string) float64 {
	if a := r.honest[kind]; a != nil && len(a.Took) > 0 {
		return ratio.Quantile(a.Took, 0.99)
	}
	return math.NaN()
}

// crowd are processes of a run.
type crowd []*role.Process

func startHonest(b besieged) (crowd, error) {
	var all crowd
	for n := range honestUsers {
		p, err := role.Start(attrOf(honestUser(n)), nil, "hostile honest", string(b), fmt.Sprint(n))
		if err != nil {
			return all, err
		}
		all = append(all, p)
		if p, err = role.Start(nil, nil, "hostile changing", string(b), fmt.Sprint(n)); err != nil {
			return all, err
		}
		all = append(all, p)
	}
	for _, p := range all {
		if _, err := p.Line(); err != nil {
			return all, fmt.Errorf("an honest user who is not disturbed yet: %w", err)
		}
	}
	return all, nil
}

func attrOf(ids role.IDs) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ids.UID, Gid: ids.GID, Groups: ids.Groups}}
}

func (c crowd) tell(what string) {
	for _, p := range c {
		_, _ = fmt.Fprintln(p, what)
	}
}

// report waits for what honest users tell. None waits longer for an answer than unanswered, in each of the steps of a request.
func (c crowd) report(ctx context.Context) accounts {
	all := make(accounts)
	ctx, cancel := context.WithTimeout(ctx, 3*unanswered)
	defer cancel()
	defer context.AfterFunc(ctx, c.signal)()
	for _, p := range c {
		line, err := p.Line()
		var one accounts
		if err == nil {
			err = json.Unmarshal([]byte(line), &one)
		}
		if err != nil {
			all.of(toLibrary).fail(fmt.Sprint("an honest user came to no end: ", err), 1)
			continue
		}
		for kind, a := range one {
			all.of(kind).join(a)
		}
	}
	return all
}

func (c crowd) signal() {
	for _, p := range c {
		if !p.Ended() {
			_ = p.Signal(syscall.SIGKILL)
		}
	}
}

func (c crowd) kill() {
	c.signal()
	for _, p := range c {
		_ = p.Stop()
	}
}
