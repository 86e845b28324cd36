package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/guise-project/guise/internal/crossing"
	"github.com/guise-project/guise/internal/machines"
)

const machinesText = `This plays three machines on this one: each has its own network, address, processes, accounts and Samba server, and the first has
a Kerberos KDC. A calls B through a pipe, B acts as A and calls C, and C acts as whom? A is %v and becomes %v on the
way. %v, %v and %v are servers that hold CAP_SETUID and CAP_SETGID, and are not root. Between machines
pipes go by SMB, authenticated by Kerberos and signed.
Whom a server acts as is shown by the kernel: whose a file is that it makes, looked at from outside of its machine, and whose
private files it may open.
`

// machinesDemo shows what becomes of a chain of servers between machines. start makes the machines.
func machinesDemo(out io.Writer, interrupted <-chan os.Signal, rows []crossing.Row, start func(context.Context) (*crossing.Stage, error)) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-interrupted:
			cancel()
		case <-ctx.Done():
		}
	}()
	fmt.Fprintf(out, machinesText, crossing.A, crossing.A2, crossing.B, crossing.C, crossing.D)
	told := &machinesTeller{claims{out: out}}
	err := playRows(ctx, told, rows, start)
	if ctx.Err() != nil {
		return errInterrupted
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `
What was shown
  on one machine  tracking is dynamic where that is asked for: a server acts as its client is
  between two     tracking is static, whatever is asked for: a server acts as its client was when it opened the pipe
  no further      who came over the network does not go on to another machine: not as the client, whose own ticket may lie there,
                  not as the server, and not as nobody; the other machine hears nothing of it

%d claims, each compared with what the kernels showed: %d were as claimed, %d were not.
`, told.all, told.all-told.wrong, told.wrong)
	if told.wrong > 0 {
		return errNotAsClaimed
	}
	return nil
}

func playRows(ctx context.Context, told *machinesTeller, rows []crossing.Row, start func(context.Context) (*crossing.Stage, error)) (err error) {
	stage, err := start(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if closing := stage.Network.Close(); err == nil {
			err = closing
		}
	}()
	for _, row := range rows {
		fmt.Fprintf(told.out, "\n%v\nExpected: %s\n\n", row, row.Expected)
		if err := stage.Play(ctx, row, crossing.Variant{}, told); err != nil {
			return err
		}
	}
	return nil
}

// startMachines makes the machines of the demonstration.
func startMachines(ctx context.Context) (*crossing.Stage, error) {
	network, err := machines.Start(ctx, &machines.Config{Accounts: crossing.Accounts(), Sign: true})
	if err != nil {
		return nil, err
	}
	stage, err := crossing.NewStage(network, false)
	if err != nil {
		network.Close()
		return nil, err
	}
	return stage, nil
}

// machinesTeller prints.
type machinesTeller struct{ claims }

func (t *machinesTeller) Tell(what string) { t.narrate("%s", what) }

func (t *machinesTeller) Claim(right bool, what, shown string) {
	if shown == "" {
		t.narrate("    %s   %s", what, t.verdict(right))
		return
	}
	t.narrate("    %s", what)
	t.narrate("        %s   %s", shown, t.verdict(right))
}
