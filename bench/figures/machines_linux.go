package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/guise-project/guise/bench/internal/ratio"
	"github.com/guise-project/guise/bench/internal/role"
	"github.com/guise-project/guise/internal/machines"
)

// showMachines prints what is measured between machines, or why it can't be.
func showMachines() error {
	if err := machines.Missing(); err != nil {
		fmt.Printf("\nBetween machines: not measured: %v\n", err)
		return nil
	}
	cpu, err := ratio.Pin()
	if err != nil {
		return err
	}
	fmt.Printf("\nBetween two machines through smbd, everything on CPU %d\n\n", cpu)
	var rows []ratio.Row
	if err := measure(&rows, nil, "machines"); err != nil {
		return err
	}
	ratio.PrintTable(os.Stdout, rows)
	return nil
}

// user is whom the clients are.
var user = machines.Account{Name: "alice", UID: 61001, GID: 61001, Password: "of-alice"}

// site is the two machines: clients on the one, on which the KDC is too, servers and their smbd on the other.
type site struct {
	client, server *machines.Machine
	program        string // this one, in the machines
}

// measureMachines is the role of the process whose the machines are. smbd and all else in them is started by it, and so on its CPU.
func measureMachines([]string) (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n, err := machines.Start(ctx, &machines.Config{Machines: 2, Accounts: []machines.Account{user}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	s := &site{client: n.Machines[0], server: n.Machines[1]}
	if s.program, err = s.client.Install("/proc/self/exe"); err != nil {
		return err
	}
	end, err := s.startDaemons()
	if err != nil {
		return err
	}
	defer end()
	var rows []ratio.Row
	for _, part := range []func() ([]ratio.Row, error){s.echo, s.dial, s.memory} {
		found, err := part()
		if err != nil {
			return err
		}
		rows = append(rows, found...)
	}
	return ratio.Print(rows)
}

// start starts this program in a role on a machine: as root where the servers are, as the user where the clients are.
func (s *site) start(m *machines.Machine, name string, args ...string) (*role.Process, error) {
	command := func(args ...string) *exec.Cmd { return m.Command(context.Background(), s.program, args...) }
	if m == s.client {
		command = func(args ...string) *exec.Cmd {
			return m.CommandAs(context.Background(), user.Name, s.program, args...)
		}
	}
	return role.StartBy(command, []string{"GOMAXPROCS=1"}, name, args...)
}

// startListening starts a role and waits until it says that it listens.
func (s *site) startListening(name string, args ...string) (*role.Process, error) {
	p, err := s.start(s.server, name, args...)
	if err != nil {
		return nil, err
	}
	if _, err := p.Line(); err != nil {
		p.Stop()
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return p, nil
}

// results waits for what a measuring process found, and for its end.
func results(p *role.Process, rows *[]ratio.Row) error {
	line, err := p.Line()
	if stopErr := p.Stop(); err == nil {
		err = stopErr
	}
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(line), rows)
}
