package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// With a client of another machine, what passes is seen at Samba's socket, and in message mode by who passes it on.
func TestServeIdleBetweenMachines(t *testing.T) {
	needRoot(t)
	n := makeNetwork(t)
	client, server := n.Machines[0], n.Machines[2]
	if err := os.WriteFile(client.Path("/tmp/password"), []byte("of-alice\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pipe  string
		flags []string
	}{
		{"of-bytes", nil},
		{"of-messages", []string{"--message"}},
	} {
		t.Run(c.pipe, func(t *testing.T) {
			limit := 2 * time.Second
			serve := append(append([]string{"--idle", limit.String(), "--grace", "100ms"}, c.flags...), c.pipe, "--", "/bin/cat")
			log, stop := n.serve(server, c.pipe, serve...)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			args := append([]string{"call", "--user", "alice", "--password-file", "/tmp/password"}, c.flags...)
			call := client.CommandAs(ctx, "alice", n.program, append(args, `\\`+server.Host+`\pipe\`+c.pipe)...)
			call.Env = append(call.Env, asProgram+"=1", "GORACE=atexit_sleep_ms=0")
			in, err := call.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			call.Stdout, call.Stderr = &out, &errs
			if err := call.Start(); err != nil {
				t.Fatal(err)
			}
			ticker := time.NewTicker(limit / 10)
			defer ticker.Stop()
			inTime, sent := true, 0
			last := time.Now()
			for end := last.Add(2 * limit); last.Before(end); last = time.Now() {
				if _, err := in.Write([]byte("x")); err == nil {
					sent++
				}
				<-ticker.C
				inTime = inTime && time.Since(last) < limit/2
			}
			began := time.Now()
			_ = call.Wait() // the server ends it
			stop()
			if !strings.Contains(log.String(), "nothing passed for 2s (--idle)") {
				t.Errorf("a client that falls silent: %s\n%s", &errs, log)
			}
			if inTime && (out.Len() < sent/2 || time.Since(began) < limit/4) {
				t.Errorf("of %d bytes that were sent in time %d came back, and the end came after %v", sent, out.Len(), time.Since(began))
			}
		})
	}
}
