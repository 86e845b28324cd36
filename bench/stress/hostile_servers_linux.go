package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/bench/internal/role"
)

// servedCommand is what guise serve runs for each client: it says who it is, and the client's line. A line that begins with ! it runs,
// as a shell that is somebody's own does.
const servedCommand = `read -r line; case $line in !*) eval "${line#!}";; *) id; echo "$line";; esac`

// besiegedServers are the two servers of one run.
type besiegedServers struct {
	library *role.Process
	serve   *exec.Cmd
	log     *serveLog
	ended   atomic.Bool // serve has
	waited  chan struct{}
}

func startServers(b besieged, guise string) (s *besiegedServers, err error) {
	s = &besiegedServers{waited: make(chan struct{})}
	defer func() {
		if err != nil {
			s.kill()
		}
	}()
	if s.library, err = role.Start(nil, nil, "hostile library", string(b)); err != nil {
		return s, err
	}
	if _, err := s.library.Line(); err != nil {
		return s, err
	}
	// Standard error is a socket, as that of a service is whose log is systemd's.
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return s, err
	}
	if err := unix.SetNonblock(pair[0], true); err != nil { // or Close would wait for a read
		return s, err
	}
	near, far := os.NewFile(uintptr(pair[0]), "log"), os.NewFile(uintptr(pair[1]), "log")
	defer far.Close()
	s.serve = exec.Command(guise, "serve", "--log", "json", "--require-group", fmt.Sprint(memberGroup), b.serve(), "--", "/bin/sh", "-c", servedCommand)
	s.serve.Dir = "/"
	s.serve.Stderr = far
	// It ends with this process, whatever ends that: in truth with the thread that started it.
	s.serve.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		defer close(s.waited)
		runtime.LockOSThread()
		err := s.serve.Start()
		started <- err
		if err == nil {
			_ = s.serve.Wait()
			s.ended.Store(true)
		}
	}()
	if err := <-started; err != nil {
		near.Close()
		return s, fmt.Errorf("starting guise serve: %w", err)
	}
	s.log = takeLog(near)
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(b.serve()); err == nil {
			return s, nil
		}
		if s.ended.Load() || time.Since(begun) > unanswered {
			return s, fmt.Errorf("guise serve does not listen: %s", s.log.tail())
		}
	}
}

// look returns an error if a server has ended, or has so much memory that others on this machine would have none.
func (s *besiegedServers) look() error {
	switch {
	case s.library.Ended():
		return errors.New("the library server has ended")
	case s.ended.Load():
		return fmt.Errorf("guise serve has ended, %v: %s", s.serve.ProcessState, s.log.tail())
	}
	for what, pid := range s.pids() {
		if memory := memoryOf(pid); memory > mostMemory {
			return fmt.Errorf("%s has %d MB of memory by now, and this run ends before there is none left", what, memory>>20)
		}
	}
	return nil
}

// mostMemory is what ends a run.
const mostMemory = 4 << 30

func (s *besiegedServers) pids() map[string]int {
	return map[string]int{toServe: s.serve.Process.Pid, toLibrary: s.library.PID()}
}

// goroutines asks the servers for theirs. guise serve ends by it: it prints them.
func (s *besiegedServers) goroutines() (library, serve int, err error) {
	if _, err := fmt.Fprintln(s.library); err != nil {
		return 0, 0, err
	}
	// It may be where no collector is waited for.
	kill := time.AfterFunc(unanswered, func() { _ = s.library.Signal(syscall.SIGQUIT) })
	line, err := s.library.Line()
	kill.Stop()
	if err == nil {
		_, err = fmt.Sscan(line, &library)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("asking the library server for its goroutines: %w", err)
	}
	if s.ended.Load() {
		return 0, 0, errors.New("guise serve has ended")
	}
	_ = s.serve.Process.Signal(syscall.SIGQUIT)
	select {
	case <-s.waited:
	case <-time.After(unanswered):
		return library, 0, errors.New("guise serve does not print its goroutines")
	}
	endHostile()
	select {
	case <-s.log.finished:
	case <-time.After(unanswered):
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	if serve = s.log.goroutines; serve == 0 {
		err = errors.New("guise serve's goroutines can't be seen: its standard error came to an end")
	}
	return library, serve, err
}

// kill ends both, whatever they are at.
func (s *besiegedServers) kill() {
	if s.library != nil {
		_ = s.library.Signal(syscall.SIGKILL)
		_ = s.library.Stop()
	}
	if s.serve != nil && s.serve.Process != nil {
		_ = s.serve.Process.Kill()
		<-s.waited
	}
	if s.log != nil {
		s.log.from.Close()
		<-s.log.finished
	}
}

// serveLog is what guise serve writes to its standard error, its commands among it.
type serveLog struct {
	from     *os.File
	finished chan struct{}

	mu         sync.Mutex
	last       [][]byte    // the last lines that are none of the log
	served     map[int]int // honest clients whose commands ended well, by uid
	lines      int
	bytes      int64
	goroutines int // of the dump at its end
}

func takeLog(from *os.File) *serveLog {
	l := &serveLog{from: from, finished: make(chan struct{}), served: make(map[int]int)}
	go func() {
		defer close(l.finished)
		lines := bufio.NewReaderSize(from, 64<<10)
		for {
			line, err := lines.ReadSlice('\n')
			l.take(line)
			if err != nil && err != bufio.ErrBufferFull {
				return
			}
		}
	}()
	return l
}

var served = []byte(`"msg":"client served"`)

func (l *serveLog) take(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines++
	l.bytes += int64(len(line))
	switch {
	case len(line) == 0:
	case bytes.HasPrefix(line, []byte("goroutine ")):
		l.goroutines++
	case bytes.Contains(line, served):
		var said struct {
			UID    int `json:"uid"`
			Status int `json:"status"`
		}
		if json.Unmarshal(line, &said) == nil && said.UID >= firstHonest && isHonest(uint32(said.UID)) && said.Status == 0 {
			l.served[said.UID]++
		}
	case line[0] != '{':
		l.last = append(l.last, bytes.Clone(line))
		if len(l.last) > 5 {
			l.last = l.last[1:]
		}
	}
}

// tail returns what was last said by other than the log, as a panic.
func (l *serveLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(bytes.Join(l.last, nil))
}

// honestServed returns how many honest clients the log has.
func (l *serveLog) honestServed() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, count := range l.served {
		n += count
	}
	return n
}
