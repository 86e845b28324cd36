package actor

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/guise-project/guise/token"
)

// environment is how a program knows that it is to be an actor.
const environment = "GUISE_ACTOR=1"

func init() {
	if os.Getenv("GUISE_ACTOR") == "1" {
		// The first thread is the one whose capabilities /proc shows as the process's.
		runtime.LockOSThread()
	}
}

// PlayIfAsked makes this process an actor if [Process] started it, and does not return then. Programs that use Process call
// it first thing in main.
func PlayIfAsked() {
	if os.Getenv("GUISE_ACTOR") != "1" {
		return
	}
	go func() {
		runtime.LockOSThread()
		p := newPerformance(&script{json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)}, changeProcess, enableProcess)
		p.play()
		p.end()
		os.Exit(0)
	}()
	for f := range onFirstThread {
		f()
	}
}

// onFirstThread has what is to be done on the process's first thread. Scopes are kept off it: it stands for the process.
var onFirstThread = make(chan func())

// enableProcess changes the effective capabilities of the calling thread, and of the first one, whose capabilities are what
// others see of the process.
func enableProcess(effective token.CapSet) error {
	done := make(chan error)
	onFirstThread <- func() { done <- enable(effective) }
	if err := <-done; err != nil {
		return err
	}
	return enable(effective)
}

// script is orders and answers as JSON on standard input and output.
type script struct {
	in  *json.Decoder
	out *json.Encoder
}

func (s *script) next() (Order, bool) {
	var o Order
	err := s.in.Decode(&o)
	if err != nil && err != io.EOF {
		fmt.Fprintln(os.Stderr, "actor: reading an order:", err)
	}
	return o, err == nil
}

func (s *script) answer(a Answer) {
	if err := s.out.Encode(a); err != nil {
		os.Exit(1) // nobody is there
	}
}

// changeProcess changes the ids of every thread, so that no thread of the process is anybody else. It returns the moment before the uid
// was changed.
func changeProcess(ids IDs) (at int64, err error) {
	groups := make([]int, len(ids.Groups))
	for i, g := range ids.Groups {
		groups[i] = int(g)
	}
	if err := syscall.Setgroups(groups); err != nil {
		return 0, fmt.Errorf("setgroups: %w", err)
	}
	g, u := int(ids.GID), int(ids.UID)
	if err := syscall.Setresgid(g, g, g); err != nil {
		return 0, fmt.Errorf("setresgid: %w", err)
	}
	at = now()
	if err := syscall.Setresuid(u, u, u); err != nil {
		return 0, fmt.Errorf("setresuid: %w", err)
	}
	return at, nil
}

// process is an actor in a process of its own.
type process struct {
	cmd    *exec.Cmd
	orders io.WriteCloser
	in     *json.Encoder
	out    *json.Decoder
}

// Process starts an actor as a process of this program's executable with the given ids and, unless they are root's, those
// capabilities (by number) and no others. It takes root.
func Process(ids IDs, capabilities ...uintptr) (Actor, error) {
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{"guise-actor"},
		Env:    append(os.Environ(), environment, "GORACE=atexit_sleep_ms=0"), // which is a second in a race-enabled build
		Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Credential:  &syscall.Credential{Uid: ids.UID, Gid: ids.GID, Groups: ids.Groups},
			AmbientCaps: capabilities,
			Pdeathsig:   syscall.SIGKILL,
		},
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	// Pdeathsig is of the thread that starts the process: the runtime must not end it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting an actor as uid %d: %w", ids.UID, err)
	}
	return &process{cmd, stdin, json.NewEncoder(stdin), json.NewDecoder(stdout)}, nil
}

func (p *process) Do(o Order) (Answer, error) {
	if err := p.in.Encode(o); err != nil {
		return Answer{}, fmt.Errorf("telling an actor to %s: %w", o.Act, err)
	}
	var a Answer
	if err := p.out.Decode(&a); err != nil {
		return Answer{}, fmt.Errorf("the actor that was to %s has gone: %w", o.Act, err)
	}
	return a, a.Err()
}

func (p *process) PID() int { return p.cmd.Process.Pid }

func (p *process) Stop() error {
	p.orders.Close() // it is between two orders, and ends when no more come
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("the actor of pid %d: %w", p.cmd.Process.Pid, err)
	}
	return nil
}
