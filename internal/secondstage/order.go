// Package secondstage starts programs as somebody for good. The server starts its own executable again, with its own ids; the
// init function here recognises that, drops every right, and only then touches what may be the client's: the working
// directory and the program.
//
// Doing it in the child of the server's own fork would let a client's file system hang the server: until that child has
// executed its program, the thread that forked waits (vfork(2)).
package secondstage

import (
	"encoding/hex"
	"encoding/json"
	"fmt"

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

// Arguments returns the command line of the second stage.
func (o Order) Arguments() []string {
	b, err := json.Marshal(struct {
		Order
		Capabilities [2]uint64
	}{o, [2]uint64{uint64(o.Capabilities.Permitted), uint64(o.Capabilities.Effective)}})
	if err != nil {
		panic(err) // numbers and strings always can be
	}
	return []string{Argument0, hex.EncodeToString(b)}
}

func parse(argument string) (Order, error) {
	b, err := hex.DecodeString(argument)
	if err != nil {
		return Order{}, fmt.Errorf("its order is not readable: %w", err)
	}
	var o struct {
		Order
		Capabilities [2]uint64
	}
	if err := json.Unmarshal(b, &o); err != nil {
		return Order{}, fmt.Errorf("its order is not readable: %w", err)
	}
	o.Order.Capabilities = token.Capabilities{Permitted: token.CapSet(o.Capabilities[0]), Effective: token.CapSet(o.Capabilities[1])}
	return o.Order, nil
}
