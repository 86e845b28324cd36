// Package secondstage starts programs as somebody for good. The server starts its own executable again, with its own ids; the
// init function here recognises that, drops every right, and only then touches what may be the client's: the working
// directory and the program.
//
// Doing it in the child of the server's own fork would let a client's file system hang the server: until that child has
// executed its program, the thread that forked waits (vfork(2)).
package secondstage

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/guise-project/guise/token"
)

// Argument0 is the argument 0 by which the executable knows that it is the second stage. Nobody gains anything by using it:
// the stage only ever drops rights, and refuses to in a set-user-ID program.
const Argument0 = "guise: becoming a client"

// Order is what the second stage is to become and to run.
type Order struct {
	UID          uint32
	GID          uint32
	Groups       []uint32
	Capabilities token.Capabilities
	Dir          string // "": stay
	Name         string
	Args         []string // with argument 0
}

// groupsAtATime keeps an argument with group ids well below the kernel's limit for one (MAX_ARG_STRLEN of execve(2)).
const groupsAtATime = 4096

// Arguments returns the command line of the second stage: argument 0, "uid gid permitted effective", the groups in as many
// arguments as it takes and an empty one, the directory, the name, and the program's arguments.
func (o Order) Arguments() []string {
	args := []string{Argument0, fmt.Sprintf("%d %d %d %d", o.UID, o.GID, o.Capabilities.Permitted, o.Capabilities.Effective)}
	for groups := o.Groups; len(groups) > 0; {
		n := min(len(groups), groupsAtATime)
		args = append(args, strings.Trim(fmt.Sprint(groups[:n]), "[]"))
		groups = groups[n:]
	}
	return append(append(args, "", o.Dir, o.Name), o.Args...)
}

var errOrder = errors.New("its order is not readable")

// parse is the reverse of Arguments.
func parse(args []string) (Order, error) {
	if len(args) < 2 {
		return Order{}, errOrder
	}
	who, rest := strings.Fields(args[1]), args[2:]
	if len(who) != 4 {
		return Order{}, errOrder
	}
	var o Order
	var permitted, effective uint64
	var errs [4]error
	o.UID, errs[0] = parseID(who[0])
	o.GID, errs[1] = parseID(who[1])
	permitted, errs[2] = strconv.ParseUint(who[2], 10, 64)
	effective, errs[3] = strconv.ParseUint(who[3], 10, 64)
	if err := errors.Join(errs[:]...); err != nil {
		return Order{}, fmt.Errorf("%w: %w", errOrder, err)
	}
	o.Capabilities = token.Capabilities{Permitted: token.CapSet(permitted), Effective: token.CapSet(effective)}
	for ; len(rest) > 0 && rest[0] != ""; rest = rest[1:] {
		for _, field := range strings.Fields(rest[0]) {
			group, err := parseID(field)
			if err != nil {
				return Order{}, fmt.Errorf("%w: %w", errOrder, err)
			}
			o.Groups = append(o.Groups, group)
		}
	}
	if len(rest) < 4 {
		return Order{}, errOrder
	}
	o.Dir, o.Name, o.Args = rest[1], rest[2], rest[3:]
	return o, nil
}

func parseID(s string) (uint32, error) {
	id, err := strconv.ParseUint(s, 10, 32)
	return uint32(id), err
}
