package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/guise-project/guise"
)

// unanswered is how long an honest request may go without an answer. No request is judged by it but one that hangs.
const unanswered = time.Minute

// The kinds of requests that honest users have.
const (
	toServe   = "guise serve"
	toLibrary = "library server"
	holding   = "library server, scopes held"
	following = "library server, changes followed"
)

var kinds = []string{toServe, toLibrary, holding, following}

// thinks is how long an honest user waits after an answer: it is no flood itself.
const thinks = 5 * time.Millisecond

// account is what an honest user tells of its requests of one kind.
type account struct {
	InTime int            // answered before the time was over
	Took   []float64      // how long each took that was answered, in milliseconds; one that failed, how long until then
	Failed map[string]int // how often what happened
}

func (a *account) failed() (n int) {
	for _, count := range a.Failed {
		n += count
	}
	return n
}

func (a *account) join(o *account) {
	a.InTime += o.InTime
	a.Took = append(a.Took, o.Took...)
	for what, n := range o.Failed {
		a.fail(what, n)
	}
}

// fail notes what failed, and of very many different things that there were more.
func (a *account) fail(what string, n int) {
	if a.Failed == nil {
		a.Failed = make(map[string]int)
	}
	if _, known := a.Failed[what]; !known && len(a.Failed) >= 20 {
		what = "something else"
	}
	a.Failed[what] += n
}

// accounts are those of one honest user, or of all, by kind.
type accounts map[string]*account

func (a accounts) of(kind string) *account {
	if a[kind] == nil {
		a[kind] = &account{}
	}
	return a[kind]
}

// clock is when honest users' time is.
type clock struct {
	over atomic.Bool
	mu   sync.Mutex
	told accounts
}

// request does one request, whose steps f tells of by what it returns, and notes how it went.
func (c *clock) request(kind string, f func() error) {
	begun := time.Now()
	err := f()
	took := time.Since(begun)
	c.mu.Lock()
	a := c.told.of(kind)
	a.Took = append(a.Took, float64(took.Microseconds())/1000)
	switch {
	case err != nil:
		a.fail(err.Error(), 1)
	case !c.over.Load():
		a.InTime++
	}
	c.mu.Unlock()
	if !c.over.Load() {
		time.Sleep(thinks)
	}
}

// playHonest does what f starts once it may begin, until the time is over, and then tells how it went. Its standard input has a line for
// either.
func playHonest(first func() error, loops ...func(*clock)) error {
	if err := first(); err != nil {
		return err
	}
	orders := bufio.NewReader(os.Stdin)
	order := func() {
		if _, err := orders.ReadString('\n'); err != nil {
			os.Exit(0) // who started this process has gone
		}
	}
	fmt.Println("ready")
	order()
	c := &clock{told: make(accounts)}
	var all sync.WaitGroup
	for _, loop := range loops {
		all.Add(1)
		go func() {
			defer all.Done()
			for loop(c); !c.over.Load(); { // once in any case
				loop(c)
			}
		}()
	}
	order()
	c.over.Store(true)
	all.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(c.told); err != nil {
		return err
	}
	order()
	return nil
}

// beHonest is the role of an honest user who asks both servers, one request after the other of each kind.
func beHonest(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	h := &honest{besieged: besieged(args[0]), number: n}
	first := func() error { return errors.Join(h.askServe(), h.askLibrary("who")) }
	return playHonest(first,
		func(c *clock) { c.request(toServe, h.askServe) },
		func(c *clock) { c.request(toLibrary, func() error { return h.askLibrary("who") }) },
		func(c *clock) { c.request(holding, func() error { return h.askLibrary("hold") }) },
	)
}

type honest struct {
	besieged
	number int
	asked  atomic.Int64
}

// open opens a pipe, every other time with dynamic tracking. What it says of an error has nothing in it that differs from one to the
// next.
func (h *honest) open(path string) (c *guise.Conn, text string, err error) {
	n := h.asked.Add(1)
	tracking := guise.Static
	if n%2 == 0 {
		tracking = guise.Dynamic
	}
	if c, err = dialInTime(path, tracking); err != nil {
		return nil, "", fmt.Errorf("connecting: %w", err)
	}
	return c, fmt.Sprintf("%d-%d", h.number, n), c.SetDeadline(time.Now().Add(unanswered))
}

// dialInTime opens a pipe unless that hangs.
func dialInTime(path string, tracking guise.Tracking) (*guise.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), unanswered)
	defer cancel()
	d := guise.Dialer{QoS: &guise.QoS{Tracking: tracking}}
	return d.Dial(ctx, path)
}

// askServe has guise serve's command say who it is, and a line.
func (h *honest) askServe() error {
	c, text, err := h.open(h.serve())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintln(c, text); err != nil {
		return fmt.Errorf("asking: %w", err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return fmt.Errorf("waiting for the answer: %w", err)
	}
	is := honestUser(h.number)
	right := fmt.Sprintf("uid=%d gid=%d groups=%d,%d,%d\n%s\n", is.UID, is.GID, is.GID, is.Groups[0], is.Groups[1], text)
	return judge(string(answer), right, text)
}

// askLibrary has the library server act as this user.
func (h *honest) askLibrary(what string) error {
	c, text, err := h.open(h.library())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintln(c, what, text); err != nil {
		return fmt.Errorf("asking: %w", err)
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return fmt.Errorf("waiting for the answer: %w", err)
	}
	is := honestUser(h.number)
	return judge(answer, fmt.Sprintf("%s %s, files are %d:%d's\n", text, textOf(is), is.UID, is.GID), text)
}

// judge returns an error for an answer that is not right. The text differs from one request to the next, and errors must not.
func judge(got, right, text string) error {
	if got == right {
		return nil
	}
	hide := func(s string) string { return strings.ReplaceAll(s, text, "TEXT") }
	return fmt.Errorf("the answer is %q, and should be %q", hide(got), hide(right))
}
