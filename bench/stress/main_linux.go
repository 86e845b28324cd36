// Command stress has the kernel judge guise under load, as root. Start it with scripts/stress.
//
//	stress scopes [COUNT]        a million scopes, or COUNT
//	stress following [DURATION]  a minute of scopes that follow their clients, or DURATION
//	stress hostile GUISE [DURATION [USER...]]
//	                             honest users beside hostile ones, three times a minute, or DURATION; GUISE is the program,
//	                             and USER the number of a hostile user, if not all are to be there
//
// The first enters many scopes from many goroutines for many identities at once and looks whether the kernel ever saw anybody but
// the right one. In each scope a goroutine compares its thread's ids, groups and capabilities as the kernel has them with the
// token's, and creates, checks and removes a file. Some scopes nest, some start goroutines, some end by a panic or Goexit, some
// are those of real clients' connections. Meanwhile the collector runs, and goroutines outside of all scopes, as well as those
// that a plain go statement started inside one, do the same work and have to be the server.
//
// The second has client processes change who they are at random, in every way there is, while servers' threads work in scopes that
// follow them, directly and at the end of long chains. Each client notes when it was who, and no file may show anybody whom it had
// ceased to be too long before; see behind. It is for the race detector.
//
// The third has honest users call a server that uses the library and guise serve, alone, beside users who only spin, and beside
// hostile users who do all that is known to disturb a server. Honest requests must be answered rightly and changes followed, and
// when the hostile ones have gone nothing of theirs may be left. It prints how fast honest requests were answered in each.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/bench/internal/role"
	"github.com/guise-project/guise/internal/leftover"
)

const (
	defaultScopes   = 1_000_000
	defaultDuration = time.Minute

	workers    = 64
	identities = 100
	connected  = 12 // of the identities have a client process with a connection
)

func main() {
	role.Play(map[string]role.Role{"client": role.Client, "server": beServing, "following client": beClient,
		"hostile library": beLibrary, "hostile honest": beHonest, "hostile changing": beChanging, "hostile spinner": spin, "hostile user": beHostile,
		"hostile victim": beVictim, "hostile scheduler": beScheduler,
		"hostile file server": beFileServer, "hostile file sender": beFileSender, "hostile stranger": beStranger})
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "stress: FAILED:", err)
		os.Exit(1)
	}
}

// command does what the arguments say.
func command(args []string) error {
	count, duration, err := defaultScopes, defaultDuration, error(nil)
	var run func(context.Context) error
	switch {
	case len(args) > 0 && args[0] == "scopes":
		run = func(ctx context.Context) error { return runScopes(ctx, count) }
		if len(args) > 1 {
			count, err = strconv.Atoi(args[1])
		}
	case len(args) > 0 && args[0] == "following":
		run = func(ctx context.Context) error { return runFollowing(ctx, duration) }
		if len(args) > 1 {
			duration, err = time.ParseDuration(args[1])
		}
	case len(args) > 1 && args[0] == "hostile":
		guise := args[1]
		var only []int
		run = func(ctx context.Context) error { return runHostile(ctx, guise, duration, only) }
		if len(args) > 2 {
			duration, err = time.ParseDuration(args[2])
		}
		for _, arg := range args[min(3, len(args)):] {
			var n int
			n, err = strconv.Atoi(arg)
			if err == nil && (n < 0 || n >= hostileUsers) {
				err = strconv.ErrRange
			}
			only = append(only, n)
		}
		args = args[:1]
	}
	if run == nil || len(args) > 2 || err != nil || count <= 0 || duration <= 0 {
		fmt.Fprintln(os.Stderr, "usage: stress scopes [COUNT] | following [DURATION] | hostile GUISE [DURATION [USER...]]")
		os.Exit(2)
	}
	if os.Geteuid() != 0 {
		return errors.New("this takes root: it acts as a hundred others")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	unix.Umask(0o077)
	return run(ctx)
}

func runScopes(ctx context.Context, count int) (err error) {
	dir, err := workDirectory()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// What may have stayed shows only before the directory goes: all of it belongs to whoever was wrong.
	files := filepath.Join(dir, "files")
	defer func() { err = errors.Join(err, checkEmpty(files)) }()

	who, err := makeIdentities(identities)
	if err != nil {
		return err
	}
	leave, err := connectSome(who[:connected], filepath.Join(dir, "pipe"))
	defer leave()
	if err != nil {
		return err
	}
	r := &running{dir: files, who: who, scopes: int64(count)}
	fmt.Printf("%d scopes, %d goroutines, %d identities (%d of them with a client process), files in %s\n", count, workers, identities, connected, files)
	start := time.Now()
	r.run(ctx)
	took := time.Since(start)

	entered := r.entered.Load()
	fmt.Printf("%d scopes in %v: %.0f a second; %d files of clients and %d of the server checked; %d scopes nested, %d goroutines started in one, %d scopes of connections, %d ended by a panic or Goexit\n",
		entered, took.Round(time.Millisecond), float64(entered)/took.Seconds(), r.clientFiles.Load(), r.serverFiles.Load(),
		r.nested.Load(), r.goroutines.Load(), r.ofConnections.Load(), r.unwound.Load())
	if err := errors.Join(r.firstErrors()...); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if entered < int64(count) {
		return fmt.Errorf("only %d scopes were entered", entered)
	}
	if err := leftover.Threads(); err != nil {
		return err
	}
	fmt.Println("passed: no file had a wrong owner or group, no thread was or is anybody but who it should be")
	return nil
}

// workDirectory makes a directory for everybody's files, in memory if this machine has such a place.
func workDirectory() (string, error) {
	parent := "/dev/shm"
	if _, err := os.Stat(parent); err != nil {
		parent = ""
	}
	dir, err := os.MkdirTemp(parent, "guise-stress-")
	if err != nil {
		return "", err
	}
	files := filepath.Join(dir, "files")
	err = errors.Join(os.Chmod(dir, 0o755), os.Mkdir(files, 0o777), os.Chmod(files, 0o777|os.ModeSticky))
	if err != nil {
		os.RemoveAll(dir)
		return "", err
	}
	return dir, nil
}

func checkEmpty(dir string) error {
	left, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("%d files were left, the first is %s", len(left), left[0].Name())
	}
	return nil
}
