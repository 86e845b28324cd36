// Command peers measures a request that is made on a client's behalf over guise beside what does such things today: gRPC, D-Bus, sudo,
// runuser, Wine's named pipes, and a program that changes its thread's ids by hand. Start it with scripts/bench, as root.
//
// The client is a process of an ordinary user, the server one of root's. A request names a file of the client's; the answer is what
// is in it. All processes are on one CPU (see command figures) and have GOMAXPROCS=1; the ways take turns in short rounds.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/bench/internal/ratio"
	"github.com/guise-project/guise/bench/internal/role"
)

var roles = map[string]role.Role{
	"stage":  playStage,
	"server": playServer,
	"client": playClient,
}

func main() {
	role.Main(roles, run)
}

func run() error {
	fmt.Println("guise and its peers:", ratio.Machine())
	cpu, err := ratio.Pin()
	if err != nil {
		return err
	}
	fmt.Printf("\nA request on a client's behalf, everything on CPU %d\n\n", cpu)
	var found findings
	if err := onStage(&found); err != nil {
		return err
	}
	ratio.PrintTable(os.Stdout, found.Rows)
	for _, missing := range found.Missing {
		fmt.Println("Not measured:", missing)
	}
	return nil
}

// onStage starts the stage and takes in what it found.
func onStage(found any, args ...string) error {
	// Its accounts are those of a mount namespace of its own.
	attr := &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	stage, err := role.Start(attr, []string{"GOMAXPROCS=1"}, "stage", args...)
	if err != nil {
		return err
	}
	line, err := stage.Line()
	if stopErr := stage.Stop(); err == nil {
		err = stopErr
	}
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(line), found)
}

// findings is what the stage hands over.
type findings struct {
	Rows    []ratio.Row
	Missing []string // ways that could not be measured here, each with the reason
}
