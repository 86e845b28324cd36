// Chain is a service of several steps, each a process of its own, in which every step acts as the first one's caller, whoever that is now.
//
//	go build -o /usr/local/bin/chain ./examples/chain
//	mkdir -m 1777 /srv/archive
//	chain -pipe archiver -dir /srv/archive &        # each as root, or as an account with CAP_SETUID and CAP_SETGID
//	chain -pipe spooler -next archiver &
//	chain -pipe frontend -next spooler &
//
// A caller sends the name of a job and a newline, and waits for the answer:
//
//	$ echo report | guise call frontend
//	report: kept for uid 1000, dynamic, by way of uid 1000 (process 4801), uid 0 (process 4712), uid 0 (process 4711)
//
// The archive's file is uid 1000's, and would not have been made if that user could not make files in /srv/archive. The way, Token.Via,
// is the caller's process, the frontend's and the spooler's.
//
// The frontend opens the spooler in a scope of its caller, and so the spooler's client is the caller, and so on. The links between
// the steps have dynamic tracking, so that a change of the caller's reaches the last step also while a job is under way. Whether
// there is one to hear of is up to the caller: with dynamic tracking of its own, one that changes its ids and sends another job on
// the same connection has that one kept as who it is then; otherwise it stays who it was.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/guise-project/guise"
)

func main() {
	log.SetFlags(0)
	pipe := flag.String("pipe", "", "name or path of this step's pipe")
	next := flag.String("next", "", "name or path of the next step's pipe")
	dir := flag.String("dir", "", "directory of the archive, for the last step")
	flag.Parse()
	if *pipe == "" || (*next == "") == (*dir == "") || flag.NArg() > 0 {
		log.Fatal("usage: chain -pipe NAME -next NAME, or chain -pipe NAME -dir DIR")
	}
	if err := run(*pipe, *next, *dir); err != nil {
		log.Fatal(err)
	}
}

func run(pipe, next, dir string) error {
	s := step{next: next}
	if dir != "" {
		var err error
		if s.archive, err = os.OpenRoot(dir); err != nil { // as the server, once; what is in it only as callers
			return err
		}
	}
	l, err := guise.Listen(pipe, nil)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { l.Close() })
	log.Printf("serving on %s", l.Addr())
	free := make(chan struct{}, 64) // a scope holds a thread while the next step works: bound them
	for {
		c, err := l.AcceptPipe()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		free <- struct{}{}
		go func() {
			defer func() { <-free }()
			defer c.Close()
			if err := s.serve(c); err != nil && err != io.EOF {
				log.Print(err)
			}
		}()
	}
}

// step is one of the chain: it hands its jobs on, or keeps them.
type step struct {
	next    string
	archive *os.Root
}

// patience is how long a caller may take for its next job, and the next step for its answer: what waits holds one of this step's places.
const patience = 30 * time.Second

// serve answers the jobs of one caller.
func (s step) serve(c *guise.Conn) error {
	jobs := bufio.NewReaderSize(c, 512)
	for {
		c.SetDeadline(time.Now().Add(patience))
		line, err := jobs.ReadSlice('\n')
		if err != nil {
			return err
		}
		job := strings.TrimSuffix(string(line), "\n")
		// What the buffer holds beyond the job has been read already, and may be of a later context than the job. A caller that waits
		// for its answer never sees this.
		if jobs.Buffered() > 0 {
			_, err := fmt.Fprintln(c, "one job at a time")
			return err
		}
		var answer string
		err = c.RunAsClient(func(scope *guise.Scope) (err error) {
			if s.archive == nil {
				answer, err = s.pass(job)
			} else {
				answer, err = s.keep(scope, job, c.QoS().Tracking)
			}
			return err
		})
		if err != nil {
			answer = err.Error()
		}
		if _, err := fmt.Fprintln(c, answer); err != nil {
			return err
		}
	}
}

// pass asks the next step, whose client is that of the scope that this is called in.
func (s step) pass(job string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := (&guise.Dialer{QoS: &guise.QoS{Tracking: guise.Dynamic}}).Dial(ctx, s.next)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintln(c, job); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSuffix(answer, "\n"), err
}

// keep makes the job's file, as the client of the scope, and tells which way that came.
func (s step) keep(scope *guise.Scope, job string, tracking guise.Tracking) (string, error) {
	f, err := s.archive.OpenFile(job, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	defer f.Close()
	client := scope.Token()
	var way []string
	for _, hop := range client.Via() {
		way = append(way, fmt.Sprintf("uid %d (process %d)", hop.UID, hop.PID))
	}
	return fmt.Sprintf("%s: kept for uid %d, %s, by way of %s", job, client.UID(), tracking, strings.Join(way, ", ")), nil
}
