// Files serves a directory over HTTP on a pipe. Everybody reads and writes there as oneself: what a file's owner and mode let its user
// do with cat and cp is what curl can do here, but that os.Root takes the right to read the directories on the way, not only to search
// them.
//
//	go build -o /usr/local/bin/files ./examples/files
//	mkdir -m 1777 /srv/share
//	files /srv/share                                # as root, or as an account with CAP_SETUID and CAP_SETGID
//
// and as anybody:
//
//	curl --unix-socket /run/guise/pipe/files http://files/notes
//	curl --unix-socket /run/guise/pipe/files -T notes http://files/
//
// The answer is 403 where the kernel says no, 404 where there is nothing. A new file is its sender's, with the server's umask. The
// server's own rights count for one thing: DIR itself and what is above it is opened once, as the server.
//
// A service that is not root, with those two capabilities alone, is the better one: what root writes to a descriptor, even one that
// was opened as the client, no quota stops. It needs a directory of its own for the pipe: files -pipe /run/files/pipe DIR.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/guisehttp"
)

func main() {
	log.SetFlags(0)
	pipe := flag.String("pipe", "files", "name or path of the pipe")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: files [-pipe NAME] DIR")
	}
	if err := serve(*pipe, flag.Arg(0)); err != nil {
		log.Fatal(err)
	}
}

func serve(pipe, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	l, err := guise.Listen(pipe, nil)
	if err != nil {
		return err
	}
	f := &files{root: root, acting: make(chan struct{}, 256)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{name...}", f.get)
	mux.HandleFunc("PUT /{name...}", f.put)
	server := &http.Server{Handler: mux, ConnContext: guisehttp.ConnContext, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	log.Printf("serving %s on %s", dir, l.Addr())
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err = server.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close() // who is slow is cut off, which is no failure
	}
	<-ended // the listener is closed, and its socket gone, also where Serve had not begun
	return err
}

type files struct {
	// root keeps names inside of the directory, whatever they and symbolic links say. It also keeps out /proc/self, which is the server.
	root *os.Root
	// acting bounds how many scopes there are, and so threads: one whose open hangs, in a client's own file system, is stuck.
	acting chan struct{}
}

var errNoFile = errors.New("not an ordinary file")

// open opens a file as the client of the request. The file is then read and written outside of the scope, for as long as the client takes.
func (f *files) open(r *http.Request, flags int) (file *os.File, err error) {
	select {
	case f.acting <- struct{}{}:
		defer func() { <-f.acting }()
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	name := r.PathValue("name")
	if name == "" {
		name = "."
	}
	err = guisehttp.RunAsClient(r, func(*guise.Scope) error {
		file, err = f.root.OpenFile(name, flags|syscall.O_NONBLOCK, 0o666) // a FIFO would wait
		return err
	})
	if errors.Is(err, syscall.ENXIO) { // a FIFO that nobody reads, or a socket
		err = fmt.Errorf("%s: %w", name, errNoFile)
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", name, errNoFile)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func (f *files) get(w http.ResponseWriter, r *http.Request) {
	file, err := f.open(r, os.O_RDONLY)
	if err != nil {
		fail(w, err)
		return
	}
	defer file.Close()
	// No modification time, and so no conditions: the answer to another user may be another one.
	http.ServeContent(w, r, file.Name(), time.Time{}, file)
}

func (f *files) put(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Content-Range") != "" { // curl -C: it would become the whole file
		http.Error(w, "only whole files can be sent", http.StatusBadRequest)
		return
	}
	file, err := f.open(r, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		fail(w, err)
		return
	}
	_, err = io.Copy(file, r.Body)
	if err := errors.Join(err, file.Close()); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

// fail answers with an error. Its text names what the client named, and the pipe.
func fail(w http.ResponseWriter, err error) {
	status := guisehttp.Status(err)
	var path *fs.PathError
	var errno syscall.Errno
	if errors.Is(err, errNoFile) || errors.As(err, &path) && !errors.As(err, &errno) { // the latter is os.Root's: it leads out of the directory
		status = http.StatusForbidden
	}
	http.Error(w, err.Error(), status)
}
