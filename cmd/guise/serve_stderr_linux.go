package main

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// commandErrors is the standard error of one command: a pipe of its own, whose lines are logged as its client's. The client rules
// over the command, can take its descriptors out of it (pidfd_getfd(2)) and do with them what it likes: empty a file, read a
// terminal, shut down a socket, make a pipe tiny. This pipe is nobody else's, and its two ends are two open files: O_NONBLOCK,
// O_ASYNC and the like, set on the command's, are not set on the server's.
type commandErrors struct {
	from   *os.File
	log    func(level slog.Level, message string, attributes ...slog.Attr)
	budget *lineBudget
	hurry  chan struct{} // closed when nobody is to be held up any more
	read   chan struct{} // closed when the reader has ended

	// The reader's; of end after it.
	line  unfinishedLine
	count int              // lines that were logged
	left  leftOut          // since it was logged last
	last  []unfinishedLine // of those left out

	mu      sync.Mutex
	idle    sync.Cond
	waiting []func() // lines to be logged
	logging bool     // by a goroutine, which goes when there is nothing
}

// leftOut is what was not logged.
type leftOut struct{ lines, bytes int }

// newCommandErrors makes the pipe. file is the command's end, and the caller's to close.
func newCommandErrors(budget *lineBudget, log func(slog.Level, string, ...slog.Attr)) (e *commandErrors, file *os.File, err error) {
	const name = "the command's standard error"
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("making %s: %w", name, os.NewSyscallError("pipe2", err))
	}
	file = os.NewFile(uintptr(pipe[1]), name) // blocking, as programs expect it
	// Non-blocking: the runtime's poller waits then, and not a thread.
	if err := unix.SetNonblock(pipe[0], true); err != nil {
		unix.Close(pipe[0])
		file.Close()
		return nil, nil, fmt.Errorf("making %s: %w", name, os.NewSyscallError("fcntl", err))
	}
	e = &commandErrors{
		from: os.NewFile(uintptr(pipe[0]), name), log: log, budget: budget,
		hurry: make(chan struct{}), read: make(chan struct{}),
	}
	e.idle.L = &e.mu
	go e.readAll()
	return e, file, nil
}

// readAll reads until nobody has the command's end any more, or end is called.
func (e *commandErrors) readAll() {
	defer close(e.read)
	raw, err := e.from.SyscallConn()
	if err != nil {
		return
	}
	for {
		n := 0
		err := raw.Read(func(fd uintptr) (done bool) {
			n, done = e.readSome(int(fd), chunk)
			return done
		})
		if err != nil || n == 0 {
			return
		}
		if wait := e.budget.read(n, time.Now()); wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-e.hurry:
				timer.Stop()
			}
		}
	}
}

// buffers are for reading. A command that is silent has none.
var buffers = sync.Pool{New: func() any { return new([chunk]byte) }}

// readSome reads up to most bytes, and reports false if there are none yet. n is 0 at the end.
func (e *commandErrors) readSome(fd, most int) (n int, ok bool) {
	buf := buffers.Get().(*[chunk]byte)
	defer buffers.Put(buf)
	for {
		n, err := unix.Read(fd, buf[:min(most, chunk)])
		switch err {
		case nil:
			e.line.add(buf[:n], e.take)
			return n, true
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, false
		default:
			return 0, true
		}
	}
}

// end takes in what the command had written when it ended, and returns when that is logged. Programs that it left behind may still
// have the pipe, and are not waited for: writing to it fails from now on (EPIPE).
func (e *commandErrors) end() {
	close(e.hurry)
	_ = e.from.SetReadDeadline(time.Unix(1, 0))
	<-e.read
	e.readRest()
	e.from.Close()
	e.line.end(e.take)
	e.logLast()
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.logging {
		e.idle.Wait()
	}
}

// readRest reads what is in the pipe now. Others may go on writing, and the client may have made it large (F_SETPIPE_SZ).
func (e *commandErrors) readRest() {
	raw, err := e.from.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		rest, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		if err != nil {
			return
		}
		for most := min(rest, mostRest); most > 0; {
			n, _ := e.readSome(int(fd), most)
			if n == 0 { // the client has read it
				return
			}
			e.budget.read(n, time.Now())
			most -= n
		}
		e.left.bytes += max(0, rest-mostRest)
	})
}

// take is called with each line.
func (e *commandErrors) take(line *unfinishedLine) {
	if e.count < mostLines && e.budget.line(time.Now()) {
		e.logLeftOut()
		e.last = e.last[:0]
		e.count++
		e.logLine(line, e.budget.logged)
		return
	}
	e.left.lines++
	e.left.bytes += line.length()
	var oldest []byte
	if len(e.last) == lastLines {
		oldest = e.last[0].text
		e.last = append(e.last[:0], e.last[1:]...)
	}
	e.last = append(e.last, unfinishedLine{append(oldest[:0], line.text...), line.cut})
}

// logLast logs the last lines, if they were to be left out, and how many the others are.
func (e *commandErrors) logLast() {
	for _, line := range e.last {
		e.left.lines--
		e.left.bytes -= line.length()
	}
	e.logLeftOut()
	for _, line := range e.last {
		e.logLine(&line, func() {})
	}
}

func (e *commandErrors) logLeftOut() {
	if e.left == (leftOut{}) {
		return
	}
	left := e.left
	e.left = leftOut{}
	e.later(func() {
		e.log(slog.LevelWarn, "command's standard error left out", slog.Int("lines", left.lines), slog.Int("bytes", left.bytes))
	})
}

func (e *commandErrors) logLine(line *unfinishedLine, logged func()) {
	// The log's format escapes what is no text: no line can look like one of the server's own.
	attributes := []slog.Attr{slog.String("line", string(line.text))}
	if line.cut > 0 {
		attributes = append(attributes, slog.Int("cut", line.cut))
	}
	e.later(func() {
		e.log(slog.LevelInfo, "command's standard error", attributes...)
		logged()
	})
}

// later has a line logged. Who reads from the command does not wait for it: the log's disk may be full, or its reader have stopped.
func (e *commandErrors) later(log func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiting = append(e.waiting, log)
	if !e.logging {
		e.logging = true
		go e.logWaiting()
	}
}

func (e *commandErrors) logWaiting() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.waiting) > 0 {
		log := e.waiting[0]
		e.waiting[0] = nil
		e.waiting = e.waiting[1:]
		e.mu.Unlock()
		log()
		e.mu.Lock()
	}
	e.waiting = nil
	e.logging = false
	e.idle.Broadcast()
}
