// Grpc is a gRPC service on a pipe whose handlers run as their callers, and its client.
//
//	(cd examples/grpc && go build -o /usr/local/bin/grpc-files .)
//	mkdir -m 1777 /srv/share
//	grpc-files serve /srv/share                     # as root, or as an account with CAP_SETUID and CAP_SETGID
//
// and as anybody:
//
//	grpc-files create notes
//	grpc-files get notes
//
// What the kernel does not let the caller do is answered with PermissionDenied, and a file that is made is the caller's. With
// -pipe, a pipe of another name or path is served or called. It is a module of its own, so that gRPC is nobody else's.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/guisegrpc"
)

var errUsage = errors.New("usage: grpc-files [-pipe NAME] serve DIR | get FILE | create FILE")

func main() {
	log.SetFlags(0)
	pipe := flag.String("pipe", "grpc-files", "name or path of the pipe")
	flag.Parse()
	run := map[string]func(pipe, arg string) error{"serve": serve, "get": get, "create": create}[flag.Arg(0)]
	if run == nil || flag.NArg() != 2 {
		log.Fatal(errUsage)
	}
	if err := run(*pipe, flag.Arg(1)); err != nil {
		log.Fatal(err)
	}
}

func serve(pipe, dir string) error {
	root, err := os.OpenRoot(dir) // as the server, once; what is in it only as callers
	if err != nil {
		return err
	}
	l, err := guise.Listen(pipe, nil)
	if err != nil {
		return err
	}
	server := grpc.NewServer(
		grpc.Creds(guisegrpc.NewServerCredentials()),
		grpc.ChainUnaryInterceptor(atMost(256), guisegrpc.UnaryAsClient),
	)
	server.RegisterService(&description, files{root})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() {
		late := time.AfterFunc(5*time.Second, server.Stop)
		defer late.Stop()
		server.GracefulStop()
	})
	log.Printf("serving %s on %s", dir, l.Addr())
	if err := server.Serve(l); !errors.Is(err, grpc.ErrServerStopped) { // that is what it returns if it was stopped before it began
		return err
	}
	return nil
}

// atMost bounds how many handlers run at once: a scope holds a thread, and one whose open hangs, in a client's own file system, is stuck.
func atMost(n int) grpc.UnaryServerInterceptor {
	acting := make(chan struct{}, n)
	return func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		select {
		case acting <- struct{}{}:
			defer func() { <-acting }()
			return handler(ctx, request)
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// call makes one call, as who runs this program.
func call(pipe, name, file string, answer any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client, err := guisegrpc.Dial(ctx, pipe, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Invoke(ctx, "/"+service+"/"+name, wrapperspb.String(file), answer)
}

func get(pipe, file string) error {
	content := new(wrapperspb.BytesValue)
	if err := call(pipe, "Get", file, content); err != nil {
		return err
	}
	_, err := os.Stdout.Write(content.Value)
	return err
}

func create(pipe, file string) error { return call(pipe, "Create", file, new(emptypb.Empty)) }
