package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/launch"
	"github.com/guise-project/guise/internal/quota"
	"github.com/guise-project/guise/token"
)

// server runs a command for each client of a pipe.
type server struct {
	name     string   // as it was given, for logs
	command  []string // with its arguments
	message  bool
	mode     modeFlag
	access   access
	limits   limits
	tracking trackingFlag
	noWatch  bool
	network  networkFlags
	format   logFlag

	handedOver bool         // systemd made the socket
	socket     os.FileInfo  // the one at the pipe's path as this server made it
	libraryLog *slog.Logger // names the pipe by itself
	log        *slog.Logger
	manager    *manager
	places     *places

	lineBudgets lineBudgets
	starting    starting
	// What the log has of clients that were refused, by user.
	refusals        quota.Rate
	refusalsLeftOut atomic.Int64
	clients         sync.WaitGroup
}

const (
	refusalsAtOnce    = 200 // lines of the log, of one user
	refusalsPerSecond = 10
)

func (s *server) run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	hangUp := hangUps(stop)
	defer signal.Stop(hangUp)
	// A log that nobody reads any more must not end the server. Ignoring the signal would have the commands ignore it too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	if err := keepDescriptors(); err != nil {
		return err
	}
	if err := launch.Prepare(); err != nil {
		return err
	}
	groups, err := s.access.lookUp()
	if err != nil {
		return err
	}
	s.access.use(groups)
	s.places = newPlaces(&s.limits)
	s.refusals = quota.Rate{AtOnce: refusalsAtOnce, PerSecond: refusalsPerSecond}
	listener, err := s.listen()
	if err != nil {
		return err
	}
	defer listener.Close()
	s.announce(listener)
	s.manager = startManager(s.places, s.endTime(), s.log)
	defer s.manager.stop()
	reloading := startReloading(hangUp, func() { s.reload(listener) })
	defer reloading()

	stopListening := context.AfterFunc(ctx, func() {
		s.manager.tell(stopping)
		listener.Close()
	})
	defer stopListening()
	err = s.accept(ctx, listener)
	s.waitClients()
	s.log.Info("ended")
	return err
}

// announce tells the log that clients can come, and what will be wrong with them if something will.
func (s *server) announce(listener *guise.Listener) {
	s.log.Info("listening", "path", addressText(listener.Addr()), "command", s.command[0])
	if programMissing(s.command[0]) {
		s.log.Warn("there is no such program: each client's command will end with status 127 until there is", "command", s.command[0])
	}
	if s.limits.max > 0 && s.limits.perUser == 0 {
		s.log.Warn("one user can take all places: --max is stated, and --max-per-user is not")
	}
	if able, err := canActAsOthers(); err == nil && !able {
		self, _ := token.Self()
		s.log.Warn("only clients whose context is the server's own will be served: acting as others takes CAP_SETUID and CAP_SETGID (AmbientCapabilities= of systemd)", "server", self)
	}
}

func (s *server) config() *guise.ListenConfig {
	return &guise.ListenConfig{
		Mode: s.access.mode(s.mode), Group: s.access.group, Allow: s.allow,
		Message: s.message, Tracking: guise.Tracking(s.tracking), Logger: s.libraryLog,
		Level: guise.Impersonation, // or there is nobody to run the command as
		Watch: !s.noWatch, Network: s.network.config(), MaxPerUser: s.limits.connections(),
	}
}

// allow is asked for each client as it connects.
func (s *server) allow(client *token.Token) error {
	for _, asked := range []func(*token.Token) error{s.access.allow, mayRunAs, s.places.allow} {
		if err := asked(client); err != nil {
			return err
		}
	}
	return nil
}

// accept starts a goroutine for each client, until ctx ends.
func (s *server) accept(ctx context.Context, listener *guise.Listener) error {
	for {
		if !s.places.wait(ctx) {
			return nil
		}
		conn, err := listener.AcceptPipe()
		switch {
		case err == nil:
		case ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			return nil
		default:
			return err
		}
		leave, full := s.places.take(conn)
		s.manager.changed()
		s.clients.Add(1)
		go func() {
			defer s.clients.Done()
			defer s.manager.changed()
			defer leave()
			if full != nil {
				s.refuse(conn, time.Now(), full)
				return
			}
			s.serve(ctx, conn)
		}()
	}
}

// endTime is how long the clients can take at the most when the server ends: their commands, then a relay, then what waits in the pipe.
func (s *server) endTime() time.Duration { return s.limits.grace + 2*flushTime + time.Second }

// waitClients waits until every client has been served, but not for a command that not even SIGKILL ends.
func (s *server) waitClients() {
	served := make(chan struct{})
	go func() {
		s.clients.Wait()
		close(served)
	}()
	select {
	case <-served:
	case <-time.After(s.endTime()):
		s.log.Error("a command does not end; leaving it behind")
	}
}
